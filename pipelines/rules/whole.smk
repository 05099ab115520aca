# All stale steps of a dataset in one job and one process (config key `jobs: dataset`): no step pays for a start of its
# own. `phonon-eels run` itself finds what is stale; logs/<step>.log and logs/<step>.json tell of each step.

rule dataset:
    input:
        lambda wildcards: WORKFLOW.source(wildcards.dataset),
    output:
        step=f"{RESULTS}/{{dataset}}/report/summary.json",
        overview=f"{RESULTS}/{{dataset}}/summary.json",
        html=report(f"{RESULTS}/{{dataset}}/report/report.html", caption="../report/report.rst", category="{dataset}"),
        figures=report(
            directory(f"{RESULTS}/{{dataset}}/report/figures"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="{dataset}",
        ),
    params:
        files=lambda wildcards: WORKFLOW.file_options(wildcards.dataset),
        settings=WORKFLOW.all_parameters(),
        results=RESULTS,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/run.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb(),
        runtime=WORKFLOW.runtime_min(),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels run {params.files:q} --output {params.results:q} --dataset {wildcards.dataset}"
        " --settings {params.settings:q} --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"
