"""The model server: a blessed model answers over HTTP and gRPC, the same way everywhere."""
