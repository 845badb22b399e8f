// The frame of the console: its head, the view, and the credential of the administrator.

import type { FunctionComponent } from "preact";
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { ApiError } from "../api/http";
import { consoleTexts as words, texts } from "../texts";
import { ThemeButton } from "../theme";
import { Notice } from "../ui/notice";
import { Accounts } from "./accounts";
import { caller, readSettings, type Settings } from "./admin";
import { Changes } from "./changes";
import { forget, load, save } from "./credential";
import { Keys } from "./keys";
import { Live } from "./live";
import { Log } from "./log";
import { useRoute, viewsOf, type View } from "./routes";
import { SignIn } from "./sign_in";
import { Usage } from "./usage";
import type { ViewProps } from "./view";

const COMPONENTS: Record<View, FunctionComponent<ViewProps>> = {
  live: Live,
  usage: Usage,
  keys: Keys,
  accounts: Accounts,
  log: Log,
  changes: Changes,
};

export function Console() {
  const route = useRoute();
  const [credential, setCredential] = useState(load);
  const [reason, setReason] = useState<string | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [done, setDone] = useState<string | null>(null);
  const settings = useSettings();
  const views = viewsOf(settings?.operations ?? true);
  const view = views.includes(route.view) ? route.view : views[0]!;
  const signOut = (why: string | null) => {
    forget();
    setCredential(null);
    setReason(why);
  };
  const signIn = (found: string, isKept: boolean) => {
    save(found, isKept);
    setCredential(found);
    setReason(null);
  };
  const onFailure = useCallback((error: unknown) => {
    setDone(null);
    if (error instanceof ApiError && error.status === 401) signOut(words.signIn.expired);
    else setProblem(error instanceof Error ? error.message : String(error));
  }, []);
  const change = useCallback<ViewProps["change"]>(async (question, action, text, onRefused) => {
    if (!confirm(question)) return false;
    setProblem(null);
    return action().then(
      () => (setDone(text), true),
      (error: unknown) => {
        if (onRefused && error instanceof ApiError && error.status !== 401) onRefused(error.message);
        else onFailure(error);
        return false;
      },
    );
  }, []);
  const call = useMemo(() => caller(credential), [credential]);
  useEffect(() => (setProblem(null), setDone(null)), [view]);
  useEffect(() => {
    document.title = words.title(credential === null ? texts.signIn.title : words.views[view]);
  }, [view, credential]);
  const Current = COMPONENTS[view];
  const isSignedIn = credential !== null;
  if (!settings) return <p class="loading">{texts.loading}</p>;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        {texts.skip}
      </a>
      <Head view={view} views={views} isSignedIn={isSignedIn} onSignOut={() => signOut(null)} />
      {isSignedIn ? (
        <main id="main" tabIndex={-1} class="console">
          <h1>{words.views[view]}</h1>
          {problem && <Closable kind="error" text={problem} onClose={() => setProblem(null)} />}
          {done && <Closable kind="info" text={done} onClose={() => setDone(null)} />}
          <Current key={view} call={call} id={route.id} operations={settings.operations} onFailure={onFailure} change={change} />
        </main>
      ) : (
        <SignIn key={reason} hasCertificates={settings.certificates} failure={reason} onSignedIn={signIn} />
      )}
    </>
  );
}

function Closable({ kind, text, onClose }: { kind: "error" | "info"; text: string; onClose(): void }) {
  return (
    <Notice kind={kind}>
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

/** Reads what the edge tells the console; null until it is known. */
function useSettings(): Settings | null {
  const [settings, setSettings] = useState<Settings | null>(null);
  useEffect(() => {
    readSettings().then(
      setSettings,
      () => setSettings({ certificates: false, operations: true }), // a key is accepted in any case
    );
  }, []);
  return settings;
}

interface HeadProps {
  view: View;
  views: readonly View[];
  isSignedIn: boolean;
  onSignOut(): void;
}

function Head({ view, views, isSignedIn, onSignOut }: HeadProps) {
  return (
    <header class="head">
      <span class="name">{words.name}</span>
      {isSignedIn && (
        <nav aria-label={texts.navigation}>
          {views.map((one) => (
            <a key={one} href={`#/${one}`} aria-current={one === view ? "page" : undefined}>
              {words.views[one]}
            </a>
          ))}
        </nav>
      )}
      <span class="grow" />
      <ThemeButton />
      {isSignedIn && (
        <button type="button" class="quiet" onClick={onSignOut}>
          {texts.signOut}
        </button>
      )}
    </header>
  );
}
