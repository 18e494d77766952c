# Judges the requests on stdin by the check in the file of the first argument.
import base64, json, os, sys

sys.path.insert(0, os.path.dirname(sys.argv[1]))
from verify import genuine

print(json.dumps([genuine(r["secret"], r["headers"], base64.b64decode(r["body"])) for r in json.load(sys.stdin)]))
