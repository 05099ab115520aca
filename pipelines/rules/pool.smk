# Scans of one specimen (column `group` of the table of datasets) as one result, with the variance between scans.

rule pool:
    input:
        WORKFLOW.group_inputs,
    output:
        summary=f"{RESULTS}/pool/{{group}}/summary.json",
        figure=report(f"{RESULTS}/pool/{{group}}/pooled.png", caption="../report/pool.rst", category="{group}"),
    params:
        folders=WORKFLOW.group_folders,
        output=lambda wildcards: f"{RESULTS}/pool/{wildcards.group}",
    wildcard_constraints:
        group="|".join(WORKFLOW.groups),
    log:
        f"{RESULTS}/pool/{{group}}.log",
    conda:
        "../envs/phonon-eels.yaml"
    resources:
        mem_mb=1000,
        runtime=5,
    shell:
        "phonon-eels pool {params.folders:q} --output {params.output:q} > {log} 2>&1"
