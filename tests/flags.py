"""Which test shows what a flag does: for every flag of every script, one that would fail without
its effect. `tests/test_flags.py` proves that the table is complete, and that these tests
use the flags.
"""

import argparse
import ast
import functools
import importlib
import re
from pathlib import Path

from tests.running import CNNS, FOLDERS, MLPS, TRANSFORMERS, kind
from tests.test_run import EFFECTIVE

TESTS = Path(__file__).resolve().parent
PREDICTORS = [f"{folder}/predict.py" for folder in (*MLPS, *CNNS, "ResNet", "ViT")]
TOOLS = [  # the other scripts
    *PREDICTORS,
    "CNN_Torch/lr_range.py", "CNN_Torch/regularisation.py", "CNN_Torch/tune.py",
    "CNN_Manual/profile_step.py", "GAN/generate.py", "LSTM/baseline.py", "LSTM/predict.py",
    "MLP_Manual/optimizers.py", "MLP_Torch/signals.py", "MLP_Torch/torch_optim.py",
    "RNN_Manual/echo.py",
    "RNN_Manual/generate.py", "ResNet/depth.py", "ResNet/make_jpegs.py", "ResNet/profile_step.py",
    "Transformer_Manual/generate.py", "Transformer_Manual/translate.py",
    "Transformer_Torch/generate.py", "Transformer_Torch/parts.py", "Transformer_Torch/translate.py",
    "VAE/codes.py", "VAE/generate.py", "ViT/make_jpegs.py", "common/results/compare.py",
    "common/results/report.py", "common/results/runs.py", "common/results/speed.py",
    "studies/images.py", "studies/reviews.py", "studies/text.py",
    "studies/twins.py", "docs/first_runs.py", "exercise.py",
]  # fmt: skip
SCRIPTS = [f"{folder}/{name}.py" for folder in FOLDERS for name in ("train", "test")] + TOOLS


class Parsed(Exception):
    pass


def parser(path: str) -> argparse.ArgumentParser:
    """The parser of a script: what its main() parses with."""
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    real = argparse.ArgumentParser.parse_args

    def parse(self, *args, **kwargs):
        raise Parsed(self)

    argparse.ArgumentParser.parse_args = parse
    try:
        module.main([])
    except Parsed as found:
        return found.args[0]
    finally:
        argparse.ArgumentParser.parse_args = real
    raise AssertionError(f"{path} parses nothing")


def flags(path: str) -> list[str]:
    """The flags of a script by their first names; positional arguments by theirs."""
    actions = parser(path)._actions
    return [(a.option_strings or [a.dest])[0] for a in actions if a.dest != "help"]


@functools.cache
def definitions(file: str) -> dict[str, str]:
    """What a test file defines at its top level: name -> source."""
    text = (TESTS / file).read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        source = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = source
        elif isinstance(node, ast.Assign):
            found |= {name.id: source for name in node.targets if isinstance(name, ast.Name)}
    return found


def names_used(text: str) -> list[str]:
    """The variables and parameters; a parameter's name may be a fixture's."""
    nodes = list(ast.walk(ast.parse(text)))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    return names + [node.arg for node in nodes if isinstance(node, ast.arg)]


def source(test: str) -> str:
    """The source of "file::test", with all of the file that it uses: tables, fixtures, helpers."""
    file, name = test.split("::")
    known, wanted, seen = definitions(file), [name], set()
    while wanted:
        name = wanted.pop()
        if name in known and name not in seen:
            seen.add(name)
            wanted += names_used(known[name])
    return "\n".join(known[name] for name in sorted(seen))


def mentions(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) is not None


EFFECT = "test_run.py::test_every_flag_has_an_effect_and_the_same_one_each_time"
TRAINING = {  # of every train.py
    "--dataset": "test_scripts.py::test_bad_flag_is_one_line_and_leaves_nothing",
    "--data-dir": "test_scripts.py::test_absent_data_dir_is_one_line",
    "--epochs": "test_run.py::test_run_leaves_its_files",
    "--device": "test_scripts.py::test_bad_flag_is_one_line_and_leaves_nothing",
    "--run-dir": "test_run.py::test_run_leaves_its_files",
    "--resume": "test_run.py::test_larger_epochs_go_on",
    "--patience": "test_run.py::test_every_folder_stops_when_its_patience_ends",
    "--compile": "test_flags.py::test_a_compiled_network_learns_as_a_plain_one_does",
    "--sync-batch-norm": "test_flags.py::test_batch_norm_of_several_processes_is_passed_on",
    "--train-accuracy": "test_train_accuracy.py::"
    "test_the_figure_is_that_of_the_checkpoint_in_evaluation_mode",
}
PARTS = "test_modern_transformer.py::test_every_part_has_an_effect_and_modern_is_all_of_them"
ROOM = "test_transformer_scripts.py::test_more_room_for_translations_is_given"
OF_KIND = {  # of a folder's train.py, where "a flag changes what is learned" is not all of it
    "CNN": {
        "--flip-test": "test_cnn_torch.py::test_the_flags_reach_both_validation_and_test",
        "--shift-test": "test_cnn_torch.py::test_the_flags_reach_both_validation_and_test",
        "--precision": "test_cnn_torch.py::test_mixed_precision_learns_as_single_precision_does",
        "--channels-last": "test_flags.py::test_channels_last_is_the_layout_of_the_weights",
    },
    "ResNet": {
        "--image-size": "test_flags.py::test_photos_are_read_in_the_size_that_is_asked_for",
        "--refit": "test_refit.py::test_a_refitted_run_keeps_its_last_epoch",
        "--pretrained": "test_resnet.py::test_torchvisions_weights_are_a_start",
        "--accumulate": "test_resnet.py::test_parts_of_a_batch_add_up_to_the_batch",
    },
    "ViT": {
        "--attention": "test_vit.py::test_both_programs_of_attention_train_alike",
        "--image-size": "test_flags.py::test_photos_are_read_in_the_size_that_is_asked_for",
        "--refit": "test_refit.py::test_a_refitted_run_keeps_its_last_epoch",
        "--pretrained": "test_vit.py::"
        "test_what_was_learned_on_shapes_serves_on_smaller_images_of_other_classes",
        "--accumulate": "test_vit.py::test_parts_of_a_batch_add_up_to_the_batch",
    },
    "RNN": {
        "--refit": "test_rnn_manual.py::"
        "test_refit_learns_the_validation_split_and_keeps_the_last_epoch",
        "--sample-length": "test_flags.py::test_a_sample_is_as_long_as_asked_for",
        "--precision": "test_rnn_manual.py::test_half_the_bits_learn_nearly_the_same",
    },
    "Transformer": {
        "--task": "test_transformer_scripts.py::test_task_and_dataset_stand_for_each_other",
        "--extra-length": ROOM,
        "--subword-dropout": "test_transformer_scripts.py::"
        "test_stopped_and_resumed_the_subwords_are_cut_alike",
        "--src": "test_translation_data.py::test_own_files_are_split_once_and_for_all",
        "--tgt": "test_translation_data.py::test_own_files_are_split_once_and_for_all",
        "--test-src": "test_translation_data.py::test_a_test_split_of_its_own_is_taken_as_it_is",
        "--test-tgt": "test_translation_data.py::test_a_test_split_of_its_own_is_taken_as_it_is",
        "--refit": "test_transformer_scripts.py::test_refit_is_for_texts_and_keeps_the_last_epoch",
        "--sample-length": "test_flags.py::test_a_sample_is_as_long_as_asked_for",
        "--precision": "test_transformer_scripts.py::test_half_the_bits_learn_nearly_the_same",
        "--accumulate": "test_transformer_scripts.py::test_a_batch_in_parts_is_the_batch",
        **dict.fromkeys(("--block", "--norm", "--kv-heads", "--bias", "--qk-norm"), PARTS),
    },
    "VAE": {
        "--channels": "test_flags.py::test_channels_are_those_of_the_network",
        "--refit": "test_vae.py::test_a_refitted_run_keeps_its_last_epoch",
        "--image-size": "test_vae.py::test_any_folder_of_images_is_learned_in_colour",
    },
    "GAN": {
        "--channels": "test_flags.py::test_channels_are_those_of_the_network",
        "--augment": "test_flags.py::test_changes_of_a_gan_reach_both_kinds_of_image",
        "--image-size": "test_gan.py::test_any_folder_of_images_even_of_one_class",
    },
}
TESTING = {  # of every test.py
    "--run-dir": "test_scripts.py::test_evaluation_without_a_run_is_one_line",
    "--data-dir": "test_flags.py::test_a_data_dir_goes_before_the_runs_own",
    "--device": "test_scripts.py::test_evaluation_without_a_run_is_one_line",
    "--record": "test_scripts.py::test_record_has_the_keys_of_the_design",
    "--config": "test_scripts.py::test_a_record_has_the_name_that_it_is_given",
}
TRANSLATED = "test_transformer_scripts.py::test_translations_are_scored_drawn_and_recorded"
PENALTY = "test_flags.py::test_length_penalty_reaches_the_search"
DEVICE = "test_flags.py::test_a_tool_takes_no_unknown_device"
WRITTEN = {
    name: "test_transformer_scripts.py::test_same_seed_writes_the_same_text"
    for name in ("--prompt", "--temperature", "--top-k", "--top-p", "--seed", "--run-dir")
} | {"--length": "test_flags.py::test_a_text_is_as_long_as_asked_for", "--device": DEVICE}
REGULARISED = "test_regularisation.py::test_a_killed_study_goes_on_and_does_nothing_twice"
SEARCHED = "test_tune.py::test_two_workers_on_one_store_lose_nothing"
RANGED = "test_tune.py::test_a_killed_range_test_goes_on"
STUDY = "test_modern_transformer.py::test_a_killed_study_goes_on_and_does_nothing_twice"
KILLED = "test_a_study_killed_three_times_goes_on_and_does_nothing_twice"
SMALL_STUDY = {
    "--seeds": f"test_small_studies.py::{KILLED}",
    "--output": "test_small_studies.py::test_rows_of_other_flags_are_refused",
    "--data-dir": "test_small_studies.py::test_without_data_a_study_says_what_it_takes_instead",
    "--quick": "test_small_studies.py::test_quick_study_makes_its_table_and_its_picture",
    "--device": DEVICE,
}
OTHER_ROWS = "test_small_studies.py::test_rows_of_other_flags_are_refused"
ACROSS = {  # of every study of several folders
    "--minutes": "test_studies.py::test_rows_of_other_flags_are_refused",
    "--seeds": f"test_studies.py::{KILLED}",
    "--data-dir": "test_studies.py::test_without_data_a_study_says_what_it_takes_instead",
    "--device": DEVICE,
    "--quick": "test_studies.py::test_quick_study_makes_its_table_and_its_picture",
    "--output": "test_studies.py::test_rows_of_other_flags_are_refused",
    "--part": "test_studies.py::test_two_parts_are_the_whole_study",
}
LAYERS = "test_rnn_manual.py::test_layers_beside_torch_are_equal_and_recorded"
QUICK = "test_results_speed.py::test_quick_run_prints_one_table_of_all_networks"
COMPARED = "test_twins.py::test_compare_prints_times_lines_and_differences"
DRAWN = "test_gan.py::test_the_same_seed_draws_the_same_images"
WALK = "test_vae.py::test_same_seed_same_images"
STUDIED = "test_optimizers.py::test_a_small_study_is_recorded_and_shown"
BASELINE = "test_lstm.py::test_a_baseline_is_recorded_beside_the_network"
ECHO = "test_rnn_manual.py::test_echo_study_draws_its_picture"
PREDICTED = "test_lstm.py::test_a_folder_of_csv_files_from_training_to_prediction"
PARTS = "::test_parts_of_a_step_are_recorded_and_shown"
MOVED = "test_transformer_scripts.py::test_files_that_were_moved_are_named_again"
TRANSLATOR = {
    "text": "test_transformer_scripts.py::test_a_sentence_is_translated",
    "--run-dir": "test_transformer_scripts.py::test_a_sentence_is_translated",
    "--beam": "test_transformer_scripts.py::test_a_sentence_is_translated",
    "--input": "test_transformer_scripts.py::test_lines_stay_in_order_and_empty_ones_empty",
    "--length-penalty": PENALTY,
    "--device": DEVICE,
}
FORMS = "test_predict.py::test_a_held_out_digit_is_recognised_in_every_form"
OF_DIGITS = {
    "pictures": FORMS, "--run-dir": FORMS, "--device": DEVICE,
    "--top": "test_predict.py::test_so_many_classes_are_listed",
    "--output": "test_predict.py::test_what_the_network_saw_is_drawn",
}  # fmt: skip
LIKE_TEST = "test_predict.py::test_images_are_answered_as_the_test_split_is"
OF_PHOTOS = {
    **dict.fromkeys(("pictures", "--run-dir", "--top", "--output"), LIKE_TEST),
    "--device": DEVICE,
    "--data-dir": "test_predict.py::"
    "test_photos_are_read_in_the_size_of_the_folder_that_was_learned",
}
MADE = dict.fromkeys(
    ("place", "--data-dir"),
    "test_cifar.py::test_the_archive_becomes_a_folder_of_jpegs_that_is_learned",
)
OF_SCRIPT = {
    **{f"{folder}/predict.py": OF_DIGITS for folder in (*MLPS, *CNNS)},
    **{f"{folder}/predict.py": OF_PHOTOS for folder in ("ResNet", "ViT")},
    **{f"{folder}/make_jpegs.py": MADE for folder in ("ResNet", "ViT")},
    "CNN_Manual/profile_step.py": dict.fromkeys(
        ("--steps", "--record"), f"test_cnn_manual.py{PARTS}"
    ),
    "ResNet/profile_step.py": dict.fromkeys(
        ("--model", "--batch-size", "--steps", "--record"), f"test_resnet.py{PARTS}"
    ),
    "docs/first_runs.py": dict.fromkeys(
        ("--folders", "--kinds", "--photos", "--output"), "test_front.py::"
        "test_a_first_run_is_an_epoch_as_often_as_the_recipe_has_and_the_start",
    ),
    "VAE/test.py": {"--samples": "test_flags.py::test_likelihoods_are_of_so_many_samples"},
    **{
        f"{folder}/test.py": {
            "--beam": TRANSLATED, "--length-penalty": PENALTY,
            **dict.fromkeys(("--src", "--tgt"), MOVED),
            **dict.fromkeys(("--test-src", "--test-tgt"), MOVED),
        }
        for folder in TRANSFORMERS
    },
    "Transformer_Torch/translate.py": TRANSLATOR,
    "Transformer_Manual/translate.py": TRANSLATOR,
    "Transformer_Torch/generate.py": WRITTEN,
    "CNN_Torch/regularisation.py": {
        **dict.fromkeys(("--dataset", "--data-dir", "--steps", "--seeds", "--output"), REGULARISED),
        "--quick": "test_regularisation.py::test_quick_study_shows_every_technique",
        "--device": DEVICE,
    },
    "CNN_Torch/tune.py": {
        **dict.fromkeys((
            "--dataset", "--data-dir", "--images", "--epochs", "--budget", "--jobs", "--seeds",
            "--output",
        ), SEARCHED),
        "--quick": "test_tune.py::test_quick_search_shows_both_and_the_recipe_by_hand",
        "--device": DEVICE,
    },
    "CNN_Torch/lr_range.py": {
        **dict.fromkeys(("--low", "--high"), "test_tune.py::test_a_range_that_is_none_is_one_line"),
        **dict.fromkeys(("--dataset", "--data-dir", "--steps", "--seeds", "--output"), RANGED),
        "--quick": "test_tune.py::test_the_picture_marks_the_rate_that_the_search_found",
        "--device": DEVICE,
    },
    "Transformer_Torch/parts.py": {
        **dict.fromkeys(("--dataset", "--data-dir", "--seconds", "--seeds", "--output"), STUDY),
        "--lr": "test_modern_transformer.py::test_rows_of_other_flags_are_refused",
        "--precision": "test_modern_transformer.py::test_rows_of_other_flags_are_refused",
        "--quick": "test_modern_transformer.py::test_quick_study_shows_every_part",
        "--device": DEVICE,
    },
    "ResNet/depth.py": {
        **SMALL_STUDY,
        **dict.fromkeys(("--subset", "--epochs", "--pixels", "--lr"), OTHER_ROWS),
        "--dataset": "test_small_studies.py::test_errors_are_of_fixed_parts_in_evaluation_mode",
    },
    "MLP_Torch/signals.py": {
        **SMALL_STUDY,
        **dict.fromkeys(("--dataset", "--depth", "--width", "--steps", "--lr"), OTHER_ROWS),
    },
    "VAE/codes.py": {
        **SMALL_STUDY,
        **dict.fromkeys(("--dataset", "--subset", "--epochs", "--samples"), OTHER_ROWS),
    },
    "Transformer_Manual/generate.py": {
        **WRITTEN, "--run-dir": "test_transformer_manual.py::test_writer_is_evaluated_and_writes",
    },
    "RNN_Manual/generate.py": {
        flag: test.replace("transformer_scripts", "rnn_manual") for flag, test in WRITTEN.items()
    },
    "RNN_Manual/echo.py": {
        "--delays": ECHO, "--steps": "test_flags.py::test_echo_is_trained_so_often_and_so_long",
        "--hidden-size": ECHO, "--output": ECHO, "--device": DEVICE,
        "--seeds": "test_flags.py::test_echo_is_trained_so_often_and_so_long",
    },
    "MLP_Manual/optimizers.py": {
        **dict.fromkeys(("--seeds", "--epochs", "--data-dir"), STUDIED), "--device": DEVICE,
        **dict.fromkeys(("--quick", "--output"),
                        "test_optimizers.py::test_a_killed_study_goes_on_and_does_nothing_twice"),
    },
    "MLP_Torch/torch_optim.py": {
        **dict.fromkeys(("--by-hand", "--data-dir", "--quick", "--output"),
                        "test_optimizers.py::test_torch_optim_goes_the_same_way"),
        "--device": DEVICE,
    },
    "LSTM/predict.py": {
        "text": PREDICTED, "--run-dir": PREDICTED, "--device": DEVICE,
        "--picture": "test_lstm.py::test_unknown_words_are_counted",
    },
    "LSTM/baseline.py": {
        "--dataset": BASELINE, "--model": BASELINE, "--ngrams": BASELINE, "--record": BASELINE,
        "--C": "test_flags.py::test_flags_reach_the_baseline",
        "--seed": "test_flags.py::test_flags_reach_the_baseline",
        "--config": "test_flags.py::test_flags_reach_the_baseline",
        "--data-dir": "test_flags.py::test_flags_reach_the_baseline",
        "--min-freq": "test_flags.py::test_flags_reach_the_baseline",
        "--subset": "test_flags.py::test_flags_reach_the_baseline",
    },
    "GAN/generate.py": {
        **dict.fromkeys((
            "--run-dir", "--count", "--columns", "--interpolate", "--label", "--single",
            "--scale", "--output", "--seed",
        ), DRAWN),
        "--device": DEVICE,
    },
    "VAE/generate.py": {
        **dict.fromkeys(("--run-dir", "--count", "--from", "--to", "--seed", "--output"), WALK),
        "kind": WALK,
        "--label": "test_vae.py::test_bad_flag_of_generate_is_one_line",
        "--data-dir": "test_flags.py::test_a_data_dir_goes_before_the_runs_own",
        "--device": DEVICE,
    },
    **dict.fromkeys(("studies/images.py", "studies/reviews.py", "studies/text.py"), ACROSS),
    "studies/twins.py": {
        **dict.fromkeys(("--pairs", "--steps", "--seconds", "--seeds", "--output"),
                        "test_verdict.py::test_a_killed_study_goes_on_and_does_nothing_twice"),
        "--quick": "test_verdict.py::test_quick_study_makes_its_tables_and_its_picture",
        "--data-dir": "test_verdict.py::test_without_data_the_study_says_what_it_takes_instead",
        "--device": DEVICE,
    },
    "common/results/compare.py": {
        "pairs": COMPARED, "--batch-size": COMPARED, "--steps": COMPARED, "--device": DEVICE,
        "--record": "test_twins.py::test_comparison_of_each_network_is_recorded_and_shown",
        **dict.fromkeys(("--window", "--input-size", "--hidden-size"), LAYERS),
    },
    "common/results/runs.py": {
        "folders": "test_results_runs.py::test_named_folders_alone",
        "--csv": "test_results_runs.py::test_csv",
        "--plot": "test_results_runs.py::test_plot_writes_and_says_so",
    },
    "common/results/speed.py": {
        **dict.fromkeys(("--quick", "--json"), QUICK), "--device": DEVICE,
    },
    "common/results/report.py": {
        "--check": "test_report.py::test_check_reports_and_changes_nothing",
    },
    "exercise.py": dict.fromkeys(
        ("folder", "number", "--restore"),
        "test_exercises.py::test_a_function_is_emptied_written_and_restored",
    ),
}  # fmt: skip


def find_test(path: str, flag: str) -> str | None:
    """The test of a script's flag; None where the table has none."""
    folder, _, name = path.rpartition("/")
    if flag in OF_SCRIPT.get(path, {}):
        return OF_SCRIPT[path][flag]
    if name == "test.py":
        return TESTING.get(flag)
    if name != "train.py":
        return None
    if flag in OF_KIND.get(kind(folder), {}):
        return OF_KIND[kind(folder)][flag]
    changing = EFFECTIVE[""] + "; " + EFFECTIVE[kind(folder)]
    if mentions(changing, flag) or mentions(changing, flag.replace("--", "--no-")):
        return EFFECT
    return TRAINING.get(flag)
