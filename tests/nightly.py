"""Cases that run each night only, as a quicker one of their kind runs every time: by test, patterns of their ids.

A whole test that is as slow bears the mark `nightly` itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["CASES", "runs_each_night"]

CASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "backends/test_jax_exactness.py": {
        "test_a_loop_that_goes_round_for_another_number_of_times_is_let": ("float64",),
        "test_what_is_decided_on_an_edge_stays_decided": ("float64", "float16"),
    },
    "backends/test_jax_floors.py": {
        "test_a_right_gradient_raises_no_alarm": ("262,144", "300,000"),
        "test_it_is_the_floor_of_the_same_network_traced": ("layernorm_mlp", "convnet", "gru", "transf"),
    },
    "backends/test_jax_paths.py": {
        "test_a_right_rule_agrees_on_every_path": ("log1p_exp",),
    },
    "backends/test_jax_rounding.py": {
        "test_programs_inside_are_entered": ("jit", "cond"),
        "test_the_row_of_a_function_covers_how_xla_computes_it": ("bfloat16",),
    },
    "backends/test_jax_rules_by_themselves.py": {
        "test_in_fewer_digits_the_rule_is_looked_at_in_float64": ("bfloat16",),
        "test_the_rule_that_is_wrong_is_named_and_no_other": ("vmap", "jit", "checkpoint"),
    },
    "backends/test_modules.py": {
        "test_a_module_in_a_subprocess_has_the_parameters_that_it_is_given": ("float64",),
    },
    "backends/test_native_losses.py": {
        "test_a_wrong_gradient_is_at_fault_by_its_label": ("float64-jax",),
    },
    "backends/test_torch_cotangents.py": {
        "test_what_a_rule_takes_for_granted_of_its_cotangent_is_found_on_this_path_alone": (
            "gelu",
            "softmax",
            "linear",
            "embedding",
        ),
    },
    "backends/test_torch_custom_rules.py": {
        "test_of_compiled_code_rules_are_looked_at_eagerly_and_that_is_said": ("OffIfCo",),
    },
    "backends/test_torch_paths.py": {
        "test_a_right_rule_agrees_on_every_path": ("sum",),
        "test_what_is_left_in_grad_is_part_of_the_gradient": ("shared", "within", "stacked"),
    },
    "backends/test_torch_rounding.py": {
        "test_right_gradients_stay_within_what_rounding_may_reach": ("float32", "lstm"),
        "test_the_floor_is_that_of_the_traced_network": ("float32",),
    },
    "backends/test_torch_unsound_rules.py": {
        "test_a_checkpoint_whose_second_forward_differs_is_named": ("counts", "True"),
    },
    "benchmarks/test_sensitivity.py": {
        "test_the_same_lines_give_the_same_gradient_in_each_library": ("of_jax",),
    },
    "capture/test_jax.py": {
        "test_loss_and_gradient_are_those_of_jax": (
            "determinants",
            "solved by",
            "Cholesky",
            "volumes",
            "resized",
            "transposed",
            "triangles",
        ),
    },
    "capture/test_solvers.py": {
        "test_bisection_has_the_values_of_a_root_and_the_derivative_of_stairs": ("in_jax",),
    },
    "capture/test_traced.py": {
        "test_a_network_comes_back_as_it_was": ("jax",),
        "test_an_op_comes_back_as_it_was": ("jax",),
        "test_its_gradient_gets_the_verdict_of_the_traced_loss": ("lstm", "mlp-jax"),
    },
    "cli/test_interrupted.py": {
        "test_what_was_verified_is_shown": ("2",),
    },
    "conformance/test_deviations.py": {
        "test_all_agree_on_small_deviations": ("std", "100"),
    },
    "conformance/test_mispredictors.py": {
        "test_a_right_gradient_raises_no_alarm_and_a_wrong_one_would": ("^sum over", "65,536"),
        "test_nor_does_it_as_a_black_box_in_torch": (
            "120 times,",
            "gelu",
            "all but one$",
            "attention",
            "margin",
            "underflow",
        ),
    },
    "conformance/test_ops.py": {
        "test_narrow_dtypes_within_their_floor": (
            "(?<!b)float16",
            "recurrent",
            "attention",
            "elementwise",
            "losses",
            "normal",
            "linear_algebra",
        ),
    },
    "conformance/test_planted_faults.py": {
        "test_a_flipped_sign_is_found_and_numpy_named": (
            "_cell",
            "attention",
            "pool",
            "norm",
            "conv",
            "stack",
            "sum",
            "max",
            "min",
            "log",
            "split",
            "solve",
            "expm1",
            "elu",
            "hardtanh",
            "sigmoid",
            "sqrt",
            "tanh",
            "huber",
            "mean",
            "multiply",
            "concatenate",
            "broadcast",
            "entropy",
            "mse",
        ),
    },
    "conformance/test_random_graphs.py": {
        "test_500_random_graphs_agree_in_float64": ("1[345]",),
    },
    "conformance/test_sums.py": {
        "test_long_sums_round_as_declared": ("262144-0.0", "262144", "-1024-"),
    },
    "core/test_callers_world.py": {
        "test_nothing_of_the_callers_changes": ("in_subprocesses",),
    },
    "core/test_cotangent.py": {
        "test_a_loss_may_return_several_arrays": ("given",),
        "test_arrays_are_weighted": ("numpy",),
        "test_several_arrays_in_a_dict_on_the_paths_of_torch": ("compile",),
    },
    "core/test_intended.py": {
        "test_no_vote_is_counted_among_three_in_any_order": ("order[1-4]",),
    },
    "core/test_isolated.py": {
        "test_figures_of_a_framework_are_those_of_a_run_in_this_process": ("compile", "jax"),
        "test_whatever_is_raised_costs_the_others_nothing": ("OwnError", "Generator.*60", "SystemExit-None"),
    },
    "core/test_locate.py": {
        "test_one_element_of_many_is_named": ("place[12]",),
    },
    "evidence/test_detection.py": {
        "test_any_one_coordinate_off_by_twice_its_limit_is_caught": ("float32",),
    },
    "evidence/test_kinks.py": {
        "test_a_convnet_whose_backgrounds_are_at_the_kink_raises_no_false_alarm": ("[^0]",),
        "test_a_relu_network_of_a_million_parameters_raises_no_false_alarm": ("[^0]",),
        "test_each_framework_at_each_kink": ("differences",),
        "test_every_op_at_its_kinks_in_every_framework": (
            "std",
            "elu",
            "tanh",
            "minimum",
            "abs",
            "y$",
            "min.x",
            "hardtanh",
            "leaky",
        ),
    },
    "evidence/test_reduced_precision.py": {
        "test_a_factor_is_not_taken_for_sums_in_bfloat16": ("1.3",),
        "test_a_fault_on_top_of_it_is_seen": ("doubled",),
        "test_large_products_around_attention": ("kernel1",),
        "test_products_of_one_kind_alone_are_told_by_name": ("operands[12]",),
        "test_short_operands_are_told_by_name": ("deep_sigmoid", "gru", "convnet-operands[12]"),
    },
    "examples/test_own_gradients.py": {
        "test_a_fault_in_it_is_named": ("custom_vjp",),
    },
    "judge/test_calls.py": {
        "test_memory_is_that_of_a_dozen_copies": ("float64",),
    },
    "judge/test_intended_distance.py": {
        "test_beyond_the_distance_it_disagrees": ("jax--1", "torch-0.0", "torch--1"),
        "test_inside_the_distance_it_is_intended": ("jax-float64", "torch-float32"),
        "test_named_elements_are_intended_where_the_others_agree": ("jax",),
        "test_one_that_forgot_is_found_whatever_the_order": ("jax-torch", "torch-jax-the rev"),
    },
    "judge/test_no_false_alarm.py": {
        "test_a_right_gradient_is_not_accused": (
            "300000 numbers, 2",
            "30 halvings, float32, by",
            "25 halv",
            "15 halvings",
            "300000 numbers, 3",
            "torch [127]",
            "jax, none",
            "rewrite: .*(by its|0.3, 1)",
            ", bfloat16, by",
        ),
    },
    "judge/test_no_false_green_unseen.py": {
        "test_a_wrong_gradient_is_not_accepted": (
            "gelu of tanh behind an exact one, by",
            "jax, 1.05 times, (bfloat16, by|float16)",
            "cube of (jax|torch), 3.06 for 3, b",
            "clamped, by",
        ),
    },
    "port/test_verify_port.py": {
        "test_a_mapping_may_be_a_function_of_numpy_or_of_jax": (
            "np.transpose-False",
            "by arithmetic-False",
            "jnp-False",
            "asarray",
            "concat",
        ),
    },
    "project/test_ci_page.py": {
        "test_the_gate_of_an_upgrade_opens_unless_something_got_worse": ("none",),
    },
    "repro/test_every_op.py": {
        "test_every_op": ("compile", "jax", "numpy", "torch-float64"),
    },
    "repro/test_export.py": {
        "test_a_faulty_op_of_torch_is_all_that_is_left_of_a_network": ("float64",),
        "test_a_faulty_rule_of_numpy_is_all_that_is_left_of_a_network": ("mse", "pool", "entropy", "norm-2", "lstm"),
        "test_a_torch_function": ("float32",),
    },
    "repro/test_modules.py": {
        "test_a_wrong_rule_in_a_module_is_shown_by_torch_alone": ("plain", "words", "recurrent"),
    },
    "repro/test_shrink.py": {
        "test_one_wrong_element_of_a_hundred_thousand_is_located": ("0", "9"),
    },
}


def runs_each_night(test: str) -> bool:
    """Whether pytest's id of a test, below tests/, is one of these cases."""
    file, _, name = test.partition("::")
    function, _, case = name.removesuffix("]").partition("[")
    return any(re.search(pattern, case) for pattern in CASES.get(file, {}).get(function, ()))
