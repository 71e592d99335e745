from research import processes


def test_alone_everything_is_a_plain_call():
    assert processes.alone() and processes.first()
    assert (processes.count(), processes.number(), processes.highest(3)) == (1, 0, 3)
    assert processes.told(lambda: (1, 2)) == (1, 2)
    processes.barrier("here")
    with processes.first_alone():
        pass
