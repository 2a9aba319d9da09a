# Consumer 1 and Consumer 2 both in group "ml-inference"
# With 6 partitions, each consumer handles 3 partitions

consumer_config = {
    'bootstrap.servers': 'localhost:9092',
    'group.id': 'ml-inference',      # Same group = load balanced
    'auto.offset.reset': 'latest',
    'max.poll.interval.ms': 300000,   # 5 min max for ML processing
    'session.timeout.ms': 30000
}

# Run multiple instances of this consumer for parallel inference
