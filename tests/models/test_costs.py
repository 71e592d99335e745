from research.models import costs

NET = {"hidden_00": (784, 32), "hidden_01": (32, 32), "hidden_02": (32, 32), "output": (32, 10)}


def test_parameters_are_kernels_and_biases():
    assert costs.parameter_count(NET) == 784 * 32 + 32 + 2 * (32 * 32 + 32) + 32 * 10 + 10


def test_the_first_layer_has_no_input_gradient():
    rest = 2 * 32 * 32 + 32 * 10
    assert costs.flops_per_image(NET) == 2 * (2 * 784 * 32 + 3 * rest)


def test_every_step_and_layer_holds_its_statistics():
    without = costs.training_bytes(NET, 64, 938, 0)
    assert costs.training_bytes(NET, 64, 938, 5) - without == 4 * 5 * 4 * 938


def test_equal_neighbours_share_a_line_and_the_total_is_last():
    lines = costs.layer_table(NET)
    assert [line.split()[0] for line in lines[1:]] == ["hidden_00", "hidden_01", "output", "total"]
    assert "hidden_01 .. hidden_02" in lines[2] and "2 x 1,056" in lines[2]
    assert lines[-1].split()[1] == "27,562"


def test_bytes_between_devices_are_those_of_the_results():
    program = """
  %a = f32[784,32]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %b = (f32[32]{0}, s32[], /*index=2*/pred[5]{0}) all-reduce(%y, %z, %w), channel_id=2
  ROOT %c = u8[4,28,28,1]{3,2,1,0} all-gather-start(%d), dimensions={0}
  %e = f32[8]{0} add(%all-reduce.1, %all-gather.2)
"""
    reduced = 4 * 784 * 32 + 4 * 32 + 4 + 5
    assert costs.collective_bytes(program) == {"all-reduce": reduced, "all-gather": 4 * 784}
