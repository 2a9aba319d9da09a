from confluent_kafka import Producer
import json

producer = Producer({
    'bootstrap.servers': 'localhost:9092',
    'client.id': 'ml-producer'
})

def delivery_callback(err, msg):
    if err:
        print(f"Delivery failed: {err}")
    else:
        print(f"Delivered to {msg.topic()} [{msg.partition()}] @ {msg.offset()}")

# Send ML events
event = {
    "user_id": "u123",
    "action": "click",
    "item_id": "item456",
    "timestamp": "2026-03-15T10:30:00Z",
    "features": {"page_time": 12.5, "scroll_depth": 0.75}
}

producer.produce(
    topic='ml-events',
    key='u123',
    value=json.dumps(event).encode('utf-8'),
    callback=delivery_callback
)
producer.flush()
