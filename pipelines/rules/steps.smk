# Every step a job of its own. A job of SLURM that was lost may still be running: --take-over keeps its results out.

include: "prepare.smk"
include: "classic.smk"
include: "analyse.smk"
