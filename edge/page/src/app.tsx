// The frame of the page: its head, the view, and the caller's credential.

import type { FunctionComponent } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import { ApiError, explain } from "./api/http";
import { readSettings } from "./api/server";
import type { Settings } from "./api/types";
import { loadCredential, removeCredential, saveCredential, type Credential } from "./auth/credential";
import { finishSignIn } from "./auth/pkce";
import { SignInView } from "./auth/sign_in";
import { Playground } from "./playground/playground";
import { useRoute, VIEWS, type View } from "./routes";
import { Sessions } from "./sessions/sessions";
import { texts } from "./texts";
import { ThemeButton } from "./theme";
import { Notice } from "./ui/notice";

export interface ViewProps {
  credential: string;
  /** What the edge tells about this server; null until it is known. */
  settings: Settings | null;
  /** The session that the address names. */
  id: string | null;
  /** Shows a failure; `isFatal` is set where there is nothing else to show. */
  onFailure(error: unknown, isFatal?: boolean): void;
}

/** The views besides the Playground, which stays in the page so that its chats do. */
const VIEW_COMPONENTS: Record<Exclude<View, "playground">, FunctionComponent<ViewProps>> = { sessions: Sessions };

export function App() {
  const { view, id } = useRoute();
  const settings = useSettings();
  const { credential, isReady, failure, signIn, signOut } = useCredential();
  const [problem, setProblem] = useState<string | null>(null);
  const onFailure = useCallback((error: unknown, isFatal = false) => {
    // A key that is revoked in mid-use ends no chat: what is on the screen stays readable.
    if (isFatal && error instanceof ApiError && error.status === 401) signOut(texts.signIn.expired);
    else setProblem(explain(error));
  }, []);
  const CurrentView = view === "playground" ? null : VIEW_COMPONENTS[view];
  useEffect(() => setProblem(null), [view, id]);
  const shown = { settings, onFailure };
  if (!isReady) return <p class="loading">{texts.loading}</p>;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        {texts.skip}
      </a>
      <Head view={view} isSignedIn={credential !== null} hasDocs={settings?.docs ?? false} onSignOut={() => signOut(null)} />
      {credential ? (
        <main id="main" tabIndex={-1}>
          <h1 class="hidden">{texts.views[view]}</h1>
          {problem && <Problem text={problem} onClose={() => setProblem(null)} />}
          <div class="view" hidden={view !== "playground"}>
            <Playground {...shown} credential={credential.value} id={view === "playground" ? id : null} />
          </div>
          {CurrentView && (
            <div class="view">
              <CurrentView {...shown} credential={credential.value} id={id} />
            </div>
          )}
        </main>
      ) : (
        <SignInView key={failure} settings={settings} failure={failure} onSignedIn={signIn} />
      )}
    </>
  );
}

function Problem({ text, onClose }: { text: string; onClose(): void }) {
  return (
    <Notice kind="error">
      {text}{" "}
      <button type="button" class="quiet" onClick={onClose}>
        {texts.close}
      </button>
    </Notice>
  );
}

/** Moves the focus to the view; the fragment of the address names the view and stays. */
function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function useSettings(): Settings | null {
  const [settings, setSettings] = useState<Settings | null>(null);
  useEffect(() => {
    readSettings().then(setSettings, () => undefined); // the page works without them
  }, []);
  return settings;
}

function useCredential() {
  const [credential, setCredential] = useState<Credential | null>(loadCredential);
  const [isReady, setReady] = useState(!location.search.includes("state="));
  const [failure, setFailure] = useState<string | null>(null);
  const signIn = (found: Credential, remember: boolean) => {
    saveCredential(found, remember);
    setCredential(found);
    setFailure(null);
  };
  const signOut = (reason: string | null) => {
    removeCredential();
    setCredential(null);
    setFailure(reason);
  };
  useEffect(() => {
    finishSignIn()
      .then((found) => found && signIn(found, false), (error: Error) => setFailure(error.message))
      .then(() => setReady(true));
  }, []);
  return { credential, isReady, failure, signIn, signOut };
}

interface HeadProps {
  view: View;
  isSignedIn: boolean;
  hasDocs: boolean;
  onSignOut(): void;
}

function Head({ view, isSignedIn, hasDocs, onSignOut }: HeadProps) {
  return (
    <header class="head">
      <span class="name">{texts.name}</span>
      {isSignedIn && (
        <nav aria-label={texts.navigation}>
          {VIEWS.map((one) => (
            <a key={one} href={`#/${one}`} aria-current={one === view ? "page" : undefined}>
              {texts.views[one]}
            </a>
          ))}
        </nav>
      )}
      <span class="grow" />
      {hasDocs && <a href="/docs/">{texts.docs}</a>}
      <ThemeButton />
      {isSignedIn && (
        <button type="button" class="quiet" onClick={onSignOut}>
          {texts.signOut}
        </button>
      )}
    </header>
  );
}
