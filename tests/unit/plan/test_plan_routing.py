from orchestration.plan.dataset import plan_routing
from rewards.core.config import RewardConfig, RewardRule

ROWS = [("chart", "chartqa")] * 3 + [("chart", "plotqa")] * 2 + [("iou", "refcoco")] * 4


def test_rows_are_counted_by_task_and_function_most_first() -> None:
    routing = plan_routing(RewardConfig(), ROWS, ROWS)

    assert [(route.task, route.function, route.num_rows) for route in routing.routes] == [
        ("chart", "chart", 5),
        ("iou", "grounding", 4),
    ]
    assert routing.unrouted == ()


def test_a_rule_for_a_source_takes_its_rows_out_of_the_task() -> None:
    rule = RewardRule(source="plotqa", function="matching", format_weight=0.2)

    routing = plan_routing(RewardConfig(rules=(rule,)), ROWS, ROWS)

    assert [(route.function, route.num_rows, route.format_weight) for route in routing.routes] == [
        ("grounding", 4, 0.1),
        ("chart", 3, 0.1),
        ("matching", 2, 0.2),
    ]


def test_rows_that_nothing_scores_are_told_drawn_or_not() -> None:
    routing = plan_routing(RewardConfig(), ROWS, [*ROWS, ("music", "a"), ("music", "a"), ("dance", "b")])

    assert [(row.task, row.source, row.num_rows) for row in routing.unrouted] == [("dance", "b", 1), ("music", "a", 2)]


def test_routes_are_told_before_there_are_rows() -> None:
    routing = plan_routing(RewardConfig(), None, [])

    assert {route.num_rows for route in routing.routes} == {None}
    assert ("iou", "grounding") in {(route.task, route.function) for route in routing.routes}
