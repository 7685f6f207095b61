"""common/cli.py and common/folders.py: flags, one-line errors, resuming, run folders and exits."""

import json
import os
import platform
import re
from argparse import ArgumentTypeError, BooleanOptionalAction, Namespace

import pytest
import torch

from common import checkpoint, cli, folders
from common.errors import UserError
from tests.conftest import user_error
from tests.running import finish, start

RECIPES = {
    "mnist": {"epochs": 20, "batch_size": 128, "lr": 2e-3, "sizes": [8, 8], "batch_norm": True},
    "spirals": {"epochs": 60, "batch_size": 64, "lr": 1e-2, "sizes": [4], "batch_norm": False},
}


def make_parser():
    parser = cli.train_parser("Train something.", RECIPES)
    parser.add_argument("--sizes", type=cli.positive_int, nargs="+", help="units of each layer")
    parser.add_argument("--batch-norm", action=BooleanOptionalAction, help="normalise")
    parser.set_defaults(**RECIPES["mnist"])
    return parser


def parse(runs, *argv):
    return cli.parse_training(make_parser(), RECIPES, runs, list(argv))


def make_run(runs, name="0001-mnist", *argv):
    """A run's folder as far as resuming looks at it."""
    args = parse(runs, *argv)
    folder = runs / name
    folder.mkdir(parents=True)
    config = {k: v for k, v in vars(args).items() if k not in ("resume", "run_dir")}
    (folder / "config.json").write_text(json.dumps(config | {"commit": "abc"}))
    checkpoint.save(
        folder / "last.safetensors", {"model": {}, "flags": folders.shaping(vars(args))}
    )
    return folder


@pytest.mark.parametrize(
    "kind, text, value",
    [
        ("positive_int", "1", 1),
        ("positive_int", "1000000", 1_000_000),
        ("natural", "0", 0),
        ("positive", "1e-30", 1e-30),
        ("positive", "3", 3.0),
        ("non_negative", "0", 0.0),
        ("fraction", "0", 0.0),
        ("fraction", "0.999", 0.999),
    ],
)
def test_numbers_in_bounds_are_taken(kind, text, value):
    parsed = getattr(cli, kind)(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "x", "", "1,5", "0x10"])
@pytest.mark.parametrize(
    "kind", ["positive_int", "natural", "positive", "non_negative", "fraction"]
)
def test_what_is_no_number_in_bounds_is_refused(kind, text):
    with pytest.raises(ArgumentTypeError, match="expected a (whole )?number .*, got "):
        getattr(cli, kind)(text)


@pytest.mark.parametrize(
    "kind, text",
    [("positive_int", "0"), ("positive_int", "1.5"), ("positive_int", "1e3"), ("natural", "0.0"),
     ("positive", "0"), ("positive", "-0.0"), ("fraction", "1"), ("fraction", "1.5")],
)  # fmt: skip
def test_bounds_and_whole_numbers_are_kept(kind, text):
    with pytest.raises(ArgumentTypeError, match=f"got '{text}'"):
        getattr(cli, kind)(text)


@pytest.mark.parametrize(
    "kind, text, most",
    [("positive_int", "1" + "0" * 30, "2.14748e+09"), ("natural", str(2**31), "2.14748e+09"),
     ("positive", "1e39", "3.4e+38"), ("non_negative", "1e300", "3.4e+38")],
)  # fmt: skip
def test_numbers_that_pytorch_cannot_hold_are_refused(kind, text, most):
    with pytest.raises(ArgumentTypeError, match=re.escape(f" and below {most}, got")):
        getattr(cli, kind)(text)


BAD_FLAGS = [
    (["--epochs", "-1"], ["--epochs", "whole number at least 1", "'-1'"]),
    (["--batch-size", "0"], ["--batch-size", "'0'"]),
    (["--lr", "nan"], ["--lr", "above 0", "'nan'"]),
    (["--seed", str(2**32)], ["--seed", str(2**32)]),
    (["--subset", "two"], ["--subset", "'two'"]),
    (["--dataset", "imagenet"], ["--dataset", "imagenet", "mnist", "spirals"]),
    (["--sizes", "8", "0"], ["--sizes", "'0'"]),
    (["--epochs"], ["--epochs"]),
    (["--no-such-flag"], ["--no-such-flag"]),
    (["stray"], ["stray"]),
    (["--epoch", "3"], ["--epoch"]),
    (["--data", "here"], ["--data"]),
    (["--res"], ["--res"]),
]


@pytest.mark.smoke
@pytest.mark.parametrize("argv, parts", BAD_FLAGS, ids=[" ".join(row[0]) for row in BAD_FLAGS])
def test_a_bad_or_abbreviated_flag_is_one_line_and_exit_code_2(tmp_path, capsys, argv, parts):
    with pytest.raises(SystemExit) as stopped:
        parse(tmp_path, *argv)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert all(part in err for part in parts)


def test_the_largest_seed_is_taken(tmp_path):
    assert parse(tmp_path, "--seed", str(2**32 - 1)).seed == 2**32 - 1


@pytest.mark.parametrize("make", [make_parser, lambda: cli.test_parser("Test.")])
def test_help_lists_every_flag_with_its_purpose(capsys, make):
    parser = make()
    assert all(action.help for action in parser._actions)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for action in parser._actions for flag in action.option_strings)


def test_a_test_script_evaluates_the_latest_run_unless_told():
    args = cli.test_parser("Test.").parse_args([])
    assert vars(args) == {
        "run_dir": None, "data_dir": None, "device": "auto", "record": False, "config": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "argv, given",
    [
        ([], []),
        (["--dataset", "mnist"], ["dataset"]),  # the default's value, and yet given
        (["--epochs", "20", "--device", "auto"], ["device", "epochs"]),
        (["--no-batch-norm"], ["batch_norm"]),
        (["--batch-size=7", "--sizes", "3", "4"], ["batch_size", "sizes"]),
    ],
)
def test_given_holds_the_flags_of_the_command_line(tmp_path, argv, given):
    assert parse(tmp_path, *argv).given == given


@pytest.mark.parametrize("dataset", RECIPES)
def test_the_datasets_recipe_fills_in_what_is_not_given(tmp_path, dataset):
    args = vars(parse(tmp_path, "--dataset", dataset, "--lr", "0.5"))
    assert args["lr"] == 0.5
    assert {name: args[name] for name in RECIPES[dataset]} == RECIPES[dataset] | {"lr": 0.5}


@pytest.mark.smoke
def test_resume_takes_the_runs_flags(tmp_path):
    folder = make_run(
        tmp_path, "0001-spirals", "--dataset", "spirals", "--lr", "0.3", "--seed", "5"
    )
    args = parse(tmp_path, "--resume")
    assert (args.dataset, args.lr, args.seed, args.epochs) == ("spirals", 0.3, 5, 60)
    assert args.sizes == [4]
    assert args.batch_norm is False
    assert args.commit == "abc"
    assert args.run_dir == str(folder)
    assert args.resume is True
    assert args.given == ["dataset", "lr", "resume", "seed"]


def test_resume_continues_the_named_run_not_the_latest(tmp_path):
    first = make_run(tmp_path, "0001-mnist", "--lr", "0.1")
    make_run(tmp_path, "0002-mnist", "--lr", "0.2")
    args = parse(tmp_path, "--resume", "--run-dir", str(first))
    assert args.lr == 0.1
    assert args.run_dir == str(first)


@pytest.mark.parametrize(
    "argv",
    [["--lr", "0.5"], ["--seed", "1"], ["--dataset", "spirals"], ["--batch-size", "127"],
     ["--subset", "100"], ["--sizes", "8"], ["--no-batch-norm"]],
    ids=" ".join,
)  # fmt: skip
def test_resume_refuses_a_flag_that_contradicts_the_run(tmp_path, argv):
    folder = make_run(tmp_path)
    flag = argv[0].replace("--no-", "--")
    with user_error(flag, folder, "--resume"):
        parse(tmp_path, "--resume", *argv)


@pytest.mark.parametrize("argv", [["--lr", "0.002"], ["--sizes", "8", "8"], ["--batch-norm"]])
def test_resume_takes_a_flag_that_agrees_with_the_run(tmp_path, argv):
    make_run(tmp_path)
    args = parse(tmp_path, "--resume", *argv)
    assert (args.lr, args.sizes, args.batch_norm) == (2e-3, [8, 8], True)


def test_resume_takes_other_epochs_device_and_data_dir(tmp_path):
    make_run(tmp_path)
    args = parse(
        tmp_path, "--resume", "--epochs", "99", "--device", "cpu", "--data-dir", "elsewhere"
    )
    assert (args.epochs, args.device, args.data_dir) == (99, "cpu", os.path.abspath("elsewhere"))


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"lr": 0.1', b"[1, 2]", b"null", b'"text"', b"\xff\xfe\x00", b"{}"],
    ids=["missing", "empty", "cut", "list", "null", "text", "bytes", "no-flags"],
)
def test_resume_refuses_a_damaged_config(tmp_path, content):
    path = make_run(tmp_path) / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    with user_error(path, "use another run"):
        parse(tmp_path, "--resume")


def make_folders(runs, *names):
    for name in names:
        (runs / name).mkdir(parents=True)
        (runs / name / "best.safetensors").write_bytes(b"")


@pytest.mark.smoke
@pytest.mark.parametrize(
    "names, latest",
    [
        (["0001-mnist"], "0001-mnist"),
        (["0009-mnist", "0010-mnist"], "0010-mnist"),
        (["9999-mnist", "10000-mnist"], "10000-mnist"),
        (["0002-a", "0001-z"], "0002-a"),
        (["0001-mnist", "notes", "x-9", "0007-mnist-sample"], "0007-mnist-sample"),
        (["0001-mnist", "2nd-try"], "0001-mnist"),
        (["0001-mnist", "0002copy-mnist"], "0001-mnist"),
    ],
)
def test_find_run_takes_the_highest_number(tmp_path, names, latest):
    make_folders(tmp_path, *names)
    assert folders.find_run(tmp_path, None, "best.safetensors") == tmp_path / latest


def test_find_run_steps_over_a_run_without_the_file(tmp_path):
    make_folders(tmp_path, "0001-mnist")
    (tmp_path / "0002-mnist").mkdir()
    assert folders.find_run(tmp_path, None, "best.safetensors") == tmp_path / "0001-mnist"


@pytest.mark.parametrize("runs", ["", "not-there"])
def test_find_run_says_which_file_no_run_has(tmp_path, runs):
    with user_error("best.safetensors", tmp_path / runs, "train"):
        folders.find_run(tmp_path / runs, None, "best.safetensors")


@pytest.mark.parametrize("name", ["empty", "not-there", "file", "long" * 100])
def test_find_run_refuses_a_named_folder_without_a_run(tmp_path, name):
    make_folders(tmp_path, "0001-mnist")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with user_error(tmp_path / name, "best.safetensors"):
        folders.find_run(tmp_path, str(tmp_path / name), "best.safetensors")


def test_find_run_takes_the_named_folder(tmp_path):
    make_folders(tmp_path, "mine", "0001-mnist")
    assert (
        folders.find_run(tmp_path, str(tmp_path / "mine"), "best.safetensors") == tmp_path / "mine"
    )


@pytest.mark.parametrize(
    "names, new",
    [
        ([], "0001-mnist"),
        (["0001-mnist", "0002-spirals"], "0003-mnist"),
        (["0009-mnist"], "0010-mnist"),
        (["9999-mnist"], "10000-mnist"),
        (["0003-mnist", "notes", "2nd-try"], "0004-mnist"),
        (["0001-mnist", "0002copy-mnist"], "0002-mnist"),
    ],
)
def test_a_new_run_gets_the_next_number(tmp_path, names, new):
    make_folders(tmp_path / "runs", *names)
    path = folders.new_run(tmp_path / "runs", None, "mnist")
    assert path == tmp_path / "runs" / new
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("name", folders.RUN_FILES)
def test_a_folder_that_holds_a_run_is_not_used_again(tmp_path, name):
    (tmp_path / name).write_text("kept")
    with user_error(tmp_path, "--resume"):
        folders.new_run(tmp_path, str(tmp_path), "mnist")
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize("content", ['{"model_type": "bert"}', "[1]", "{"])
def test_a_folder_with_another_programs_config_is_not_taken(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with user_error(tmp_path / "config.json"):
        folders.new_run(tmp_path, str(tmp_path), "mnist")
    assert (tmp_path / "config.json").read_text() == content
    (tmp_path / "config.json").write_text('{"dataset": "mnist"}')  # of a run that never had a step
    assert folders.new_run(tmp_path, str(tmp_path), "mnist") == tmp_path


def test_an_empty_name_of_a_run_folder_is_one_line(tmp_path):
    """As of `--run-dir "$UNSET"`: it would be the working directory."""
    with user_error("--run-dir ''"):
        folders.new_run(tmp_path, "", "mnist")
    with user_error("--run-dir ''"):
        folders.find_run(tmp_path, "", "best.safetensors")


def test_a_named_folder_is_made_with_its_parents_or_used_when_it_holds_no_run(tmp_path):
    path = tmp_path / "a" / "b"
    assert folders.new_run(tmp_path, str(path), "mnist") == path
    (path / "notes.txt").write_text("")
    assert folders.new_run(tmp_path, str(path), "mnist") == path


@pytest.mark.parametrize("name", ["file", "file/below", "long" * 100])
def test_a_run_folder_that_cannot_be_made_is_a_user_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    with user_error("cannot make the run folder"):
        folders.new_run(tmp_path, str(tmp_path / name), "mnist")


def of_steps(warmup: int, given=("warmup",), resume: bool = False) -> Namespace:
    return Namespace(epochs=2, warmup=warmup, given=given, resume=resume)


@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_a_typed_warmup_shorter_than_the_run_stays(warmup):
    args = of_steps(warmup)
    assert cli.total_steps(args, 5) == 10 and args.warmup == warmup


@pytest.mark.parametrize("warmup", [10, 11])
def test_a_typed_warmup_as_long_as_the_run_is_refused(warmup):
    with user_error(f"--warmup {warmup}", "10 steps"):
        cli.total_steps(of_steps(warmup), 5)


@pytest.mark.parametrize("warmup, fitting", [(0, 0), (4, 4), (5, 5), (6, 5), (200, 5)])
def test_a_recipes_warmup_is_at_most_half_of_a_run(warmup, fitting):
    args = of_steps(warmup, given=())
    assert cli.total_steps(args, 5) == 10 and args.warmup == fitting


def test_a_resumed_run_keeps_its_warmup():
    args = of_steps(8, given=(), resume=True)
    assert cli.total_steps(args, 5) == 10 and args.warmup == 8


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error, code, said",
    [
        (UserError("no such run"), 2, "error: no such run\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        *(
            (error, 2, "error: not enough memory: take a smaller --batch-size or network\n")
            for error in (
                MemoryError(),
                torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
                RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't "
                    "allocate memory: you tried to allocate 3600000000 bytes."
                ),
            )
        ),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3\n"),
    ],
)
def test_entry_ends_with_one_line_and_an_exit_code(capsys, error, code, said):
    with pytest.raises(SystemExit) as stopped:
        cli.entry(raising(error))
    assert stopped.value.code == code
    assert capsys.readouterr() == ("", said)


def test_entry_runs_main_and_ends_well(capsys):
    cli.entry(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


def test_entry_does_not_hide_a_programmers_error():
    with pytest.raises(ZeroDivisionError):
        cli.entry(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="memory format"):
        cli.entry(raising(RuntimeError("unsupported memory format option Preserve")))


FAULTS = """
import ctypes, resource, torch
from common import cli
def main():
    print(ctypes.CDLL(None).mallopt(-3, 2**31 - 1))  # M_MMAP_THRESHOLD; old releases refuse
    def pages():  # that the system gave this process
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):  # 40 and 80 MB are more than what glibc ever keeps by itself
        for megabytes in (10, 40, 80):
            torch.ones(megabytes << 18)
    before = pages()
    for _ in range(10):
        for megabytes in (10, 40, 80):
            torch.ones(megabytes << 18)
    print(pages() - before)
cli.entry(main)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_a_step_takes_the_memory_that_the_one_before_has_freed():
    """1,300 MB, or 332,800 pages of 4 kB, are written; hardly any may be new."""
    done = finish(start("-c", FAULTS))
    assert done.code == 0, done
    taken, new = map(int, done.out.split())
    if not taken:
        pytest.skip("this glibc keeps pieces of 32 MB at most")
    assert new < 300


def test_an_old_glibc_keeps_as_much_as_it_can_and_the_users_wish_counts(monkeypatch):
    held = {}

    class Library:
        def __init__(self, name):
            assert name is None

        def mallopt(self, option, size):  # of before the limit was given up
            taken = option != -3 or size <= 32 << 20
            held.update({option: size} if taken else {})
            return int(taken)

    monkeypatch.setattr("ctypes.CDLL", Library)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    cli.entry(lambda: None)
    assert held == {}
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    cli.entry(lambda: None)
    assert held == {-3: 32 << 20, -1: 2**31 - 1}


def test_where_malloc_is_another_nothing_happens(monkeypatch, capsys):
    class Library:  # macOS's, which lacks mallopt
        def __init__(self, name):
            pass

    def absent(name):  # Windows takes no name but a library's
        raise TypeError("bad argument type for built-in operation")

    for library in (Library, absent):
        monkeypatch.setattr("ctypes.CDLL", library)
        cli.entry(lambda: print("done"))
        assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.long
def test_entry_is_silent_when_nobody_reads_on(lines, unbuffered):
    """As in `python train.py | head -n 0`."""
    script = f"from common import cli; cli.entry(lambda: print('line\\n' * {lines}))"
    reading, writing = os.pipe()
    os.close(reading)
    done = finish(start("-c", script, more={"PYTHONUNBUFFERED": unbuffered}, stdout=writing))
    os.close(writing)
    assert (done.code, done.err) == (141, "")
