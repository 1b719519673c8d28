"""What may stand in a list of packages: names and versions, and nothing that pip or npm take for anything else."""

import pytest

from executor.packages.requests import Lists, Unusable, parse


def at(scheme, path, user=""):
    """An address, of nothing."""
    return f"{scheme}://{user}127.0.0.1/{path}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("polars", "polars"),
        (" polars ", "polars"),
        ("Polars>=1,<2", "polars"),
        ("ruamel.yaml", "ruamel-yaml"),
        ("scikit_image == 0.25.*", "scikit-image"),
        ("pandas[excel,html]>=2", "pandas"),
    ],
)
def test_python_names_and_versions_are_taken(text, name):
    assert parse(text, "python").name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lodash", "lodash"),
        ("lodash@4", "lodash"),
        ("lodash@^4.17.0", "lodash"),
        ("lodash@>=4 <5", "lodash"),
        ("lodash@latest", "lodash"),
        ("@scope/x.y", "@scope/x.y"),
        ("@scope/x@~1.2", "@scope/x"),
    ],
)
def test_javascript_names_and_versions_are_taken(text, name):
    assert parse(text, "javascript").name == name


@pytest.mark.parametrize("language", ["python", "javascript"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "-r requirements.txt",
        "--target=y",
        "-e .",
        "../x",
        "./x",
        "/etc/passwd",
        "~/x",
        ".",
        "..",
        "x/y",
        at("https", "x.whl"),
        at("git+https", "x"),
        at("git+ssh", "x", user="git@"),
        f"pkg @ {at('http', 'x.whl')}",
        "pkg @ file:///etc/passwd",
        "pkg@file:../x",
        "pkg@npm:other",
        f"pkg@{at('https', 'x.tgz')}",
        "pkg@user/repo",
        "pkg@../x",
        "pkg@..",
        "pkg@x.tgz",
        "x.tgz",
        "x.tar.gz",
        "user/repo",
        "github:user/repo",
        "x --global-option=y",
        "x; python_version>'3'",
        "x\n--target=y",
        "x\0",
        "x" * 300,
        "$(id)",
        "`id`",
        "\ud800",
    ],
)
def test_nothing_else_is_taken(text, language):
    with pytest.raises(Unusable, match="only names and versions"):
        parse(text, language)


def test_lists_know_every_spelling_of_a_name_and_take_wildcards():
    lists = Lists(allow=(), deny=("Ruamel_Yaml", "nvidia-*"))
    assert lists.denied("ruamel-yaml") and lists.denied("nvidia-nccl-cu12") and not lists.denied("polars")
    only = Lists(allow=("polars", "@scope/*"), deny=())
    only.check("polars")
    only.check("@scope/x")
    with pytest.raises(Unusable, match=r"not on the list .*: polars, @scope"):
        only.check("pandas")
