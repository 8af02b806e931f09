"""Plans: every way to spread a model over GPUs, which are possible, what each is worth and gave."""

from glmlab.plans.judged import JudgedPlan
from glmlab.plans.ranking import RankedPlans, plan
from glmlab.plans.space import Plan, every_plan

__all__ = ["JudgedPlan", "Plan", "RankedPlans", "every_plan", "plan"]
