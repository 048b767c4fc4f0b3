"""A pool whose method is renamed by a reload: `poolbench chaos` copies this file and exchanges the name below."""
from poold import worker

NAME = "first"


@worker.method(name=NAME, codec="bytes")
def renamed(body):
    return body
