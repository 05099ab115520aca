# From the file to aligned spectra; both routes.

rule ingest:
    input:
        lambda wildcards: WORKFLOW.source(wildcards.dataset),
    output:
        f"{RESULTS}/{{dataset}}/ingest/summary.json",
    params:
        files=lambda wildcards: WORKFLOW.file_options(wildcards.dataset),
        settings=WORKFLOW.parameters("ingest"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/ingest.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("ingest"),
        runtime=WORKFLOW.runtime_min("ingest"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels ingest {params.files:q} --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule register_frames:
    input:
        WORKFLOW.inputs("register_frames"),
    output:
        f"{RESULTS}/{{dataset}}/register_frames/summary.json",
    params:
        settings=WORKFLOW.parameters("register_frames"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/register_frames.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("register_frames"),
        runtime=WORKFLOW.runtime_min("register_frames"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels register_frames --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule remove_spikes:
    input:
        WORKFLOW.inputs("remove_spikes"),
    output:
        f"{RESULTS}/{{dataset}}/remove_spikes/summary.json",
    params:
        settings=WORKFLOW.parameters("remove_spikes"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/remove_spikes.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("remove_spikes"),
        runtime=WORKFLOW.runtime_min("remove_spikes"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels remove_spikes --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule align_zlp:
    input:
        WORKFLOW.inputs("align_zlp"),
    output:
        f"{RESULTS}/{{dataset}}/align_zlp/summary.json",
    params:
        settings=WORKFLOW.parameters("align_zlp"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/align_zlp.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("align_zlp"),
        runtime=WORKFLOW.runtime_min("align_zlp"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels align_zlp --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule calibrate:
    input:
        WORKFLOW.inputs("calibrate"),
    output:
        f"{RESULTS}/{{dataset}}/calibrate/summary.json",
    params:
        settings=WORKFLOW.parameters("calibrate"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/calibrate.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("calibrate"),
        runtime=WORKFLOW.runtime_min("calibrate"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels calibrate --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"
