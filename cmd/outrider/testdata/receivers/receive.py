# Runs the receiver that lies in the folder of the first argument. It works on
# an event only after a line came on stdin, and prints its id then.
import sys

sys.path.insert(0, sys.argv[1])
import receiver

receiver.Receiver.log_message = lambda *_: None

def handle(event):
    sys.stdin.readline()
    print(event["id"], flush=True)

receiver.run(("127.0.0.1", 0), handle)
