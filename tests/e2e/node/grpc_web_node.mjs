// Prints the results of the calls as JSON.
import { askInBoth } from "./grpc_web.mjs";

console.log(JSON.stringify(await askInBoth(process.env.PARLEY_HTTP, process.env.KEY)));
