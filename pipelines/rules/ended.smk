# When nothing runs any more: results/index.html, and on the terminal who is not finished and why.

onsuccess:
    WORKFLOW.show()


onerror:
    print(WORKFLOW.failures(), WORKFLOW.show(), sep="\n", file=sys.stderr)
