"""Command lines of launch/, and whether the programs of this repository understand them."""

import functools
import importlib
import re
import shlex
from pathlib import Path

from absl import flags

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def check(words):
    """Assert that the words `... python -m research.X --flag=value ...` name what exists."""
    at = words.index("-m")
    assert Path(words[at - 1]).name == "python"
    module, arguments = words[at + 1], words[at + 2 :]
    assert module in ("research.main", "research.report", "research.predict")
    check_flags(arguments, module)


def check_flags(arguments, module="research.main"):
    """Assert that `arguments` are flags of `module`, and its config and keys exist."""
    importlib.import_module(module)
    own = {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict()[module]}
    config = None
    for word in arguments:
        assert re.fullmatch(r"--[\w.]+(=.*)?", word, re.DOTALL), f"not a flag: {word!r}"
        name, equals, value = word[2:].partition("=")
        assert (equals and value) or own[name].boolean, f"{word!r} has no value"
        if name.startswith("config."):
            assert config is not None, f"{word!r} comes before --config"
            # Raises KeyError with the nearest key.
            functools.reduce(lambda node, key: node[key], name.split(".")[1:], config)
            continue
        assert name in own, f"{module} has no flag {name!r}"
        if name == "config":
            file, _, variant = value.partition(":")
            assert (ROOT / file).exists(), f"there is no {file}"
            config = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            config = config.get_config(variant)
        elif equals:
            own[name].parser.parse(value)
    if module == "research.main":
        assert config is not None, "no --config"


def of_page(path):
    """The commands of a page in Markdown: between backticks, of three words or of launch/.

    Returns lists of words, as a shell splits them, up to a pipe.
    """
    text = re.sub(r"<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
    quoted = [each.replace("\\|", "|") for each in re.findall(r"`([^`]+)`", text)]
    split = [shlex.split(each.partition("|")[0]) for each in quoted]
    return [words for words in split if len(words) > 2 or words[0].startswith("launch/")]


def variables(words):
    """The NAME=value words that a command starts with, or gives to sky with --env."""
    named = [re.fullmatch(r"([A-Z_]+)=(.*)", word) for word in words]
    return {each[1]: each[2] for each in named if each}
