// Shows the API document with Swagger UI, with operations that can be tried on this server.
"use strict";
(() => {
  const place = document.getElementById("api");

  // Swagger UI's own layout has a heading and a main part, which the page has already, and a choice of servers.
  const layout = ({ React: { createElement } }) => ({
    components: {
      SiteLayout: ({ getComponent, specSelectors }) =>
        createElement(
          "div",
          { className: "swagger-ui" },
          createElement(getComponent("SvgAssets")),
          createElement(getComponent("errors", true)),
          specSelectors.securityDefinitions() &&
            createElement("div", { className: "scheme-container" }, createElement(getComponent("AuthorizeBtnContainer", true))),
          createElement(getComponent("operations", true)),
          createElement(getComponent("Models", true)),
        ),
    },
  });

  // A key may be entered as it is; the API document describes the whole header.
  const withScheme = (request) => {
    const credential = request.headers.Authorization;
    if (credential && !credential.includes(" ")) request.headers.Authorization = `Bearer ${credential}`;
    return request;
  };

  // This page cannot sign in at an issuer: the document's addresses of one are examples. Keys come first.
  const withoutSignIn = (spec) => {
    const { key, jwt } = spec.components.securitySchemes;
    const description = "An access token (JWT) of an issuer of this installation.";
    spec.components.securitySchemes = { key, jwt: { ...jwt, description } };
    for (const one of [spec, ...Object.values(spec.paths).flatMap(Object.values)])
      if (one.security) one.security = one.security.filter((scheme) => !("oauth2" in scheme));
    return spec;
  };

  const show = (spec) =>
    SwaggerUIBundle({
      spec: withoutSignIn(spec),
      domNode: place,
      layout: "SiteLayout",
      docExpansion: "list",
      defaultModelsExpandDepth: 0,
      tryItOutEnabled: true,
      persistAuthorization: false,
      validatorUrl: null,
      requestInterceptor: withScheme,
      syntaxHighlight: { activated: false }, // its colours have too little contrast
      plugins: [layout],
      presets: [SwaggerUIBundle.presets.apis],
    });

  fetch(place.dataset.document)
    .then((response) => response.json())
    .then(show)
    .catch(() => {
      place.textContent = "The API document cannot be read. Load the page again.";
    });

  // Swagger UI leaves some of its controls without a name.
  const NAMES = [
    [".examples-select-element", "Example"],
    [".body-param__text", "Body"],
    [".close-modal", "Close the dialog"],
    ["select:not([aria-label], [id])", "Value"],
  ];
  const name = () => {
    for (const [controls, text] of NAMES)
      for (const control of place.querySelectorAll(controls)) control.setAttribute("aria-label", text);
    for (const button of place.querySelectorAll(".auth-btn-wrapper [aria-label]")) button.removeAttribute("aria-label");
    for (const table of place.querySelectorAll("table[role=region]")) table.removeAttribute("role");
    for (const title of place.querySelectorAll(".auth-container h4")) title.setAttribute("role", "none");
    for (const text of place.querySelectorAll("pre")) text.tabIndex = 0;
  };
  new MutationObserver(name).observe(place, { childList: true, subtree: true });

  // The colours of Swagger UI follow those of the site.
  const follow = () =>
    document.documentElement.classList.toggle("dark-mode", document.body.dataset.mdColorScheme === "slate");
  new MutationObserver(follow).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  follow();
})();
