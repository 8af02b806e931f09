"""Plans: every way to spread a model over GPUs, which of them are possible, and what each is worth."""

from glmlab.plans.judged import JudgedPlan
from glmlab.plans.ranking import RankedPlans, plan
from glmlab.plans.space import Plan, every_plan

__all__ = ["JudgedPlan", "Plan", "RankedPlans", "every_plan", "plan"]
