# Every dataset of pipelines/datasets.tsv, every step of the route:  snakemake --cores all
# Settings: pipelines/config.yaml. Profiles: pipelines/profiles. A step's folder and its log carry the step's name.
import re
import sys
from pathlib import Path

from snakemake.utils import min_version, validate

from phonon_eels.pipeline.workflow import Workflow

min_version("9.0")


configfile: "pipelines/config.yaml"
report: "pipelines/report/workflow.rst"


validate(config, "pipelines/schema/config.schema.yaml")
WORKFLOW = Workflow.from_config(config)
RESULTS = WORKFLOW.results
# The program of the environment that Snakemake itself runs in, activated or not.
shell.prefix(f"export PATH={str(Path(sys.executable).parent)!r}:$PATH; ")


wildcard_constraints:
    dataset="|".join(map(re.escape, WORKFLOW.datasets)),


include: f"pipelines/rules/{'whole' if config['jobs'] == 'dataset' else 'steps'}.smk"
include: "pipelines/rules/pool.smk"
include: "pipelines/rules/ended.smk"


rule all:
    input:
        expand(f"{RESULTS}/{{dataset}}/report/report.html", dataset=WORKFLOW.datasets),
        expand(f"{RESULTS}/pool/{{group}}/summary.json", group=WORKFLOW.groups),
    default_target: True
