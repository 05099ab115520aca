# Only on the classic route: nothing asks for these rules on the other.

rule normalise:
    input:
        WORKFLOW.inputs("normalise"),
    output:
        f"{RESULTS}/{{dataset}}/normalise/summary.json",
    params:
        settings=WORKFLOW.parameters("normalise"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/normalise.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("normalise"),
        runtime=WORKFLOW.runtime_min("normalise"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels normalise --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule denoise:
    input:
        WORKFLOW.inputs("denoise"),
    output:
        f"{RESULTS}/{{dataset}}/denoise/summary.json",
    params:
        settings=WORKFLOW.parameters("denoise"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/denoise.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("denoise"),
        runtime=WORKFLOW.runtime_min("denoise"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels denoise --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule subtract_zlp:
    input:
        WORKFLOW.inputs("subtract_zlp"),
    output:
        f"{RESULTS}/{{dataset}}/subtract_zlp/summary.json",
    params:
        settings=WORKFLOW.parameters("subtract_zlp"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/subtract_zlp.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("subtract_zlp"),
        runtime=WORKFLOW.runtime_min("subtract_zlp"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels subtract_zlp --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule deconvolve:
    input:
        WORKFLOW.inputs("deconvolve"),
    output:
        f"{RESULTS}/{{dataset}}/deconvolve/summary.json",
    params:
        settings=WORKFLOW.parameters("deconvolve"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/deconvolve.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("deconvolve"),
        runtime=WORKFLOW.runtime_min("deconvolve"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels deconvolve --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"
