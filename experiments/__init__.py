"""The paper's comparison at our size: python -m experiments run, plan, report.

A comparison is a list of steps (plan.py), each cached in a directory named by what it is and by a hash of all
that goes into it (steps.py). settings/*.yaml says how large everything is (settings.py). Corpora are made by
corpora.py, trainings are `unispeech pretrain` and `unispeech finetune` with the recipes of recipes.py, models
are scored by scoring.py. runner.py carries steps out and takes interrupted ones up again; report.py writes
docs/results.md from results/*.json, which is all that is kept in the repository.
"""
