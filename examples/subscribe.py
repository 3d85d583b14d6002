"""Print every final answer of every fleet, with nothing of roadside: python subscribe.py mqtt://127.0.0.1:1883"""

import sys
from urllib.parse import urlsplit

import msgpack
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


def show(client: Client, userdata: object, message) -> None:
    envelope = msgpack.unpackb(message.payload)
    answer = envelope["body"]
    if answer["final"]:
        vehicle = message.topic.split("/")[4]
        print(f"{vehicle} <- {envelope['sender']} ({answer['place']}): {answer['text']}", flush=True)


def subscribe(client: Client, *_) -> None:
    client.subscribe("roadside/v1/+/vehicle/+/result/+", qos=1)


url = urlsplit(sys.argv[1])
client = Client(CallbackAPIVersion.VERSION2)
client.username_pw_set(url.username, url.password)
client.on_message = show
client.on_connect = subscribe
client.connect(url.hostname or "127.0.0.1", url.port or 1883)
client.loop_forever()
