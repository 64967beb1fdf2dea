"""Experts of several kinds and seeds → merges of every kind → judged images → tables, figures."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.ablations import nodes, recipes, training
from safetydpo_kedro.pipelines.evaluation.pipeline import prompts_node
from safetydpo_kedro.settings import (
    ABLATION_EXPERTS,
    ABLATION_JOINT,
    ABLATION_SEEDS,
    ABLATION_SWEEPS,
    ALL_SINGLE,
    CATEGORIES,
)

NAMESPACE = "ablations"
ARMS = ("strategies", "variants", "kinds", "counts")
RECIPES = "recipes"  # tag of all that the sweeps of the recipe need
JUDGING = {
    "base_model": "base_model",
    "judge_clip": "judge_clip",
    "q16_prompts": "q16_prompts",
    "judges": "params:evaluation.judges",
    "verdicts": "params:evaluation.verdicts",
    "checker": "params:evaluation.checker",
    "drawing": "params:evaluation.drawing",
}


def create_training_pipeline(seed: str) -> Pipeline:
    """All experts of one seed: of every kind one for each category, and the joint ones."""
    experts = [
        (f"experts.{kind}", kind, category) for kind in ABLATION_EXPERTS for category in CATEGORIES
    ]
    experts += [(f"joint.{kind}", kind, ALL_SINGLE) for kind in ABLATION_JOINT]
    return Pipeline(
        [
            Node(
                training.train_varied_expert,
                {
                    "model": "base_model",
                    "train_pairs": "train_pairs",
                    "latent_cache": "latent_cache",
                    "preservation_cache": "preservation_cache",
                    "reference_scores": "reference_scores",
                    "categories": f"params:{expert}.categories",
                    "noise": "params:noise",
                    "parameters": f"params:{expert}.expert_training",
                    "changes": f"params:ablations.{changes}",
                    "seed": f"params:ablations.seeds.{seed}",
                },
                expert_name(kind, expert, seed),
                name=f"train_{kind}_{expert}",
                tags=["gpu"],
            )
            for changes, kind, expert in experts
        ],
        namespace=f"{NAMESPACE}.seed_{seed}",
        prefix_datasets_with_namespace=False,
    )


def expert_name(kind: str, expert: str, seed: str) -> str:
    """Catalog entry of an expert of the ablations."""
    return f"ablation_{kind}_{expert}_{seed}_expert"


def create_judging_pipeline(seed: str) -> Pipeline:
    """Merges of the experts of one seed, and the joint experts, drawn and judged."""
    looking = {
        **JUDGING,
        "questions": "ablation_questions",
        "categories": f"params:{ALL_SINGLE}.categories",
    }
    merging = {
        "latent_cache": "latent_cache",
        "train_pairs": "train_pairs",
        "preservation_cache": "preservation_cache",
        "profile": "params:merging.profile",
        "fitting": "params:merging.fitting",
        "seed": f"params:ablations.seeds.{seed}",
        **{sweep: f"params:ablations.{sweep}" for sweep in ARMS},
    }
    merges = [
        Node(
            nodes.judge_merges,
            {
                **looking,
                **merging,
                "sweeps": f"params:ablations.sweeps.{kind}",
                **{name: expert_name(kind, name, seed) for name in CATEGORIES},
            },
            scores_name(kind, seed),
            name=f"judge_{kind}_merges",
            tags=["gpu"],
        )
        for kind in ABLATION_EXPERTS
    ]
    joint = Node(
        nodes.judge_joint_experts,
        {**looking, **{kind: expert_name(kind, ALL_SINGLE, seed) for kind in ABLATION_JOINT}},
        scores_name("joint", seed),
        name="judge_joint_experts",
        tags=["gpu"],
    )
    return Pipeline(
        [*merges, joint],
        namespace=f"{NAMESPACE}.seed_{seed}",
        prefix_datasets_with_namespace=False,
    )


def scores_name(kind: str, seed: str) -> str:
    """Catalog entry of judged images of one kind of experts."""
    return f"ablation_{kind}_{seed}_scores"


def create_report_pipeline() -> Pipeline:
    """Tables and figures over all seeds."""
    kinds = (*ABLATION_EXPERTS, "joint")
    return Pipeline(
        [
            Node(
                nodes.collect_trials,
                {
                    f"{kind}__{seed}": scores_name(kind, seed)
                    for kind in kinds
                    for seed in ABLATION_SEEDS
                },
                "trial_scores",
                name="collect_trials",
            ),
            Node(
                nodes.report_trials,
                ["trial_scores", f"params:{ALL_SINGLE}.categories"],
                [
                    "trial_table",
                    "transfer_matrix",
                    "strategies_trade_off",
                    "co_merge_variants_trade_off",
                    "expert_kinds_trade_off",
                    "transfer_heatmap",
                    "expert_counts",
                ],
                name="report_trials",
            ),
        ],
        namespace=NAMESPACE,
        prefix_datasets_with_namespace=False,
    )


def create_recipes_pipeline() -> Pipeline:
    """Sweeps of the training recipe: ``kedro run --pipelines ablations --tags recipes``."""
    arms = {
        "train_pairs": "train_pairs",
        "categories": "params:ablations.recipes.categories",
        "parameters": "params:expert_training",
        "changes": "params:ablations.recipes.training",
        "noise": "params:noise",
        "sweeps": "params:ablations.recipes.sweeps",
    }
    questions = Node(
        recipes.choose_recipe_questions,
        [
            "evaluation_prompts",
            "params:ablations.recipes.categories",
            "params:ablations.recipes.questions",
        ],
        "recipe_questions",
        name="choose_recipe_questions",
    )
    judging = [
        Node(
            recipes.judge_recipes,
            {
                **JUDGING,
                **arms,
                "questions": "recipe_questions",
                "latent_cache": "latent_cache",
                "preservation_cache": "preservation_cache",
                "reference_scores": "reference_scores",
                "seed": f"params:ablations.seeds.{seed}",
            },
            scores_name("recipes", seed),
            name=f"judge_seed_{seed}",
            tags=["gpu"],
        )
        for seed in ABLATION_SEEDS
    ]
    report = Node(
        recipes.report_recipes,
        {
            **arms,
            "log_axes": "params:ablations.recipes.log_axes",
            **{seed: scores_name("recipes", seed) for seed in ABLATION_SEEDS},
        },
        ["recipe_table", *(f"recipe_{sweep}_figure" for sweep in ABLATION_SWEEPS)],
        name="report_recipes",
    )
    sweeps = Pipeline(
        [questions, *judging, report],
        namespace=f"{NAMESPACE}.{RECIPES}",
        prefix_datasets_with_namespace=False,
    )
    return Pipeline([prompts_node(), sweeps], tags=[RECIPES])


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines ablations``, after ``dataset_generation``."""
    questions = Node(
        nodes.choose_questions,
        ["evaluation_prompts", "params:ablations.questions"],
        "ablation_questions",
        name="choose_questions",
        namespace=NAMESPACE,
    )
    by_seed = (
        create_training_pipeline(seed) + create_judging_pipeline(seed) for seed in ABLATION_SEEDS
    )
    merging = sum(by_seed, Pipeline([questions])) + create_report_pipeline()
    return merging + create_recipes_pipeline()
