"""The Kubernetes API as steps use it: any kind of object, with retries and errors that say what to do.

Import its modules where they are needed; `cluster` brings the Kubernetes client along, which takes a second.
"""
