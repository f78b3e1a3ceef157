"""The same work done with other libraries, in turn with ours."""
