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
        mem_mb=1500,
        runtime=15,
    shell:
        "phonon-eels normalise --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} > {log} 2>&1"


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
        mem_mb=4000,
        runtime=60,
    shell:
        "phonon-eels denoise --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} > {log} 2>&1"


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
        mem_mb=1500,
        runtime=15,
    shell:
        "phonon-eels subtract_zlp --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} > {log} 2>&1"


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
        mem_mb=2000,
        runtime=60,
    shell:
        "phonon-eels deconvolve --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} > {log} 2>&1"
