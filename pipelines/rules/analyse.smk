# Peaks, layers, superstructure, modulation, report; both routes.

rule fit_peaks:
    input:
        WORKFLOW.inputs("fit_peaks"),
    output:
        f"{RESULTS}/{{dataset}}/fit_peaks/summary.json",
    params:
        settings=WORKFLOW.parameters("fit_peaks"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/fit_peaks.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("fit_peaks"),
        runtime=WORKFLOW.runtime_min("fit_peaks"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels fit_peaks --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule assign_layers:
    input:
        WORKFLOW.inputs("assign_layers"),
    output:
        f"{RESULTS}/{{dataset}}/assign_layers/summary.json",
    params:
        settings=WORKFLOW.parameters("assign_layers"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/assign_layers.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("assign_layers"),
        runtime=WORKFLOW.runtime_min("assign_layers"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels assign_layers --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule map_superstructure:
    input:
        WORKFLOW.inputs("map_superstructure"),
    output:
        f"{RESULTS}/{{dataset}}/map_superstructure/summary.json",
    params:
        settings=WORKFLOW.parameters("map_superstructure"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/map_superstructure.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("map_superstructure"),
        runtime=WORKFLOW.runtime_min("map_superstructure"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels map_superstructure --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule measure_modulation:
    input:
        WORKFLOW.inputs("measure_modulation"),
    output:
        f"{RESULTS}/{{dataset}}/measure_modulation/summary.json",
    params:
        settings=WORKFLOW.parameters("measure_modulation"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/measure_modulation.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("measure_modulation"),
        runtime=WORKFLOW.runtime_min("measure_modulation"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels measure_modulation --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"


rule report:
    input:
        WORKFLOW.inputs("report"),
    output:
        summary=f"{RESULTS}/{{dataset}}/report/summary.json",
        overview=f"{RESULTS}/{{dataset}}/summary.json",
        html=report(f"{RESULTS}/{{dataset}}/report/report.html", caption="../report/report.rst", category="{dataset}"),
        figures=report(
            directory(f"{RESULTS}/{{dataset}}/report/figures"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="{dataset}",
        ),
    params:
        settings=WORKFLOW.parameters("report"),
        folder=WORKFLOW.folder,
        device=config["device"],
    log:
        f"{RESULTS}/{{dataset}}/logs/report.log",
    conda:
        "../envs/phonon-eels.yaml"
    threads: config["threads"]
    resources:
        mem_mb=WORKFLOW.memory_mb("report"),
        runtime=WORKFLOW.runtime_min("report"),
        **WORKFLOW.gpu,
    shell:
        "phonon-eels report --dataset-folder {params.folder} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} ${{SLURM_JOB_ID:+--take-over}} > {log} 2>&1"
