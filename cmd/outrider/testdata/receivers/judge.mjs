// Judges the requests on stdin by the check in the file of the first argument.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { genuine } = await import(pathToFileURL(process.argv[2]));
const requests = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(requests.map((r) => genuine(r.secret, r.headers, Buffer.from(r.body, "base64")))));
