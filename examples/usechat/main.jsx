// What a framework does: put the page into the document.
import { Suspense } from "react";
import { createRoot } from "react-dom/client";
import Page from "./page.jsx";

createRoot(document.getElementById("root")).render(
  <Suspense fallback="Loading">
    <Page />
  </Suspense>,
);
