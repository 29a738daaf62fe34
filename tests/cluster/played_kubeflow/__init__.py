"""Plays Kubeflow Pipelines on a cluster that has none.

Its API is that of the contract tests, which refuses what the API server would refuse. What a run does is real: the
package that was submitted is run on this machine by the target `local`, with the parameters that were submitted; its
artifacts go to an object store, to where Kubeflow Pipelines puts them; and each step that was run becomes a real pod on
the cluster, with the labels, annotations and security context of one of Kubeflow Pipelines' pods, that prints the
step's log and ends as the step did. It is a stand-in for the API, the driver, the launcher and Argo, and proves nothing
about these.

`runs.FAULTS` are what it can be told to do wrong.
"""
