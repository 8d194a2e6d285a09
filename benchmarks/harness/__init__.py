"""What measures the peers: processes, environments, workloads, results, and the pages that are made of them."""
