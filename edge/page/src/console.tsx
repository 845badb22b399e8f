// Starts the console, the page of the admin listener.

import { render } from "preact";
import { Console } from "./console/app";

render(<Console />, document.getElementById("page")!);
