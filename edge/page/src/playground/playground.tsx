// The Playground: one conversation, or two side by side, with one setup and one field for questions.

import { useEffect, useMemo, useReducer, useState } from "preact/hooks";
import { listModels } from "../api/server";
import type { Model } from "../api/types";
import type { ViewProps } from "../app";
import { texts } from "../texts";
import { Notice } from "../ui/notice";
import { Chats } from "./chats";
import { Composer } from "./composer";
import { question } from "./images";
import { Pane } from "./pane";
import { loadFields, readSetup, saveFields, type SetupFields } from "./setup";
import { SetupPanel } from "./setup_panel";
import { useBusy, useSessionInAddress } from "./use_conversation";

export function Playground({ credential, settings, id, onFailure }: ViewProps) {
  const models = useModels(credential, onFailure);
  if (!models) return <p class="loading">{texts.loading}</p>;
  if (!models.length) return <Notice kind="info">{texts.models.none}</Notice>;
  const shown = { credential, models, id, onFailure, grpcPort: settings?.grpc_port ?? 0 };
  return <Panes {...shown} />;
}

function useModels(credential: string, onFailure: ViewProps["onFailure"]): Model[] | null {
  const [models, setModels] = useState<Model[] | null>(null);
  useEffect(() => {
    listModels(credential).then(setModels, (error: unknown) => onFailure(error, true));
  }, [credential]);
  return models;
}

type PanesProps = Omit<ViewProps, "settings"> & { models: Model[]; grpcPort: number };

function Panes({ credential, models, id, grpcPort, onFailure }: PanesProps) {
  const [fields, setFields] = useState<SetupFields>(loadFields);
  const [isComparing, setComparing] = useState(false);
  const [isSetupOpen, setSetupOpen] = useState(false);
  const [, update] = useReducer((count: number) => count + 1, 0);
  const chats = useMemo(() => new Chats(credential, models), [credential, models]);
  const both = chats.shown;
  const shown = isComparing ? both : both.slice(0, 1);
  const { setup, errors } = useMemo(() => readSetup(fields), [fields]);
  const isBusy = useBusy(both);
  useSessionInAddress(both[0]);
  useEffect(() => () => chats.stop(), [chats]);
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    if (id) chats.open(id, signal).then(() => update(undefined), (error: unknown) => signal.aborted || onFailure(error));
    return () => controller.abort();
  }, [chats, id]);

  const change = (changed: SetupFields) => {
    setFields(changed);
    saveFields(changed);
  };
  const send = (text: string, images: string[]) => {
    for (const conversation of shown) void conversation.send([question(text, images)], setup);
  };
  return (
    <div class={`playground${isSetupOpen ? " with-setup" : ""}${isComparing ? " comparing" : ""}`}>
      <Toolbar
        isComparing={isComparing}
        isSetupOpen={isSetupOpen}
        onCompare={() => setComparing(!isComparing)}
        onSetup={() => setSetupOpen(!isSetupOpen)}
        onNew={() => {
          location.hash = "#/playground"; // the address names no session any more
          chats.renew();
          update(undefined);
        }}
      />
      {isSetupOpen && <SetupPanel fields={fields} errors={errors} onChange={change} />}
      <div class="panes">
        {shown.map((conversation, index) => (
          <Pane
            key={conversation.id}
            conversation={conversation}
            models={models}
            setup={setup}
            grpcPort={grpcPort}
            label={isComparing ? texts.models.numbered(index + 1) : texts.models.label}
            onModel={(model) => {
              conversation.model = model;
              update(undefined);
            }}
          />
        ))}
      </div>
      <Composer
        isBusy={isBusy}
        isReady={!Object.keys(errors).length}
        onSend={send}
        onStop={() => both.forEach((conversation) => conversation.stop())}
      />
    </div>
  );
}

interface ToolbarProps {
  isComparing: boolean;
  isSetupOpen: boolean;
  onCompare(): void;
  onSetup(): void;
  onNew(): void;
}

function Toolbar({ isComparing, isSetupOpen, onCompare, onSetup, onNew }: ToolbarProps) {
  return (
    <div class="row toolbar">
      <button type="button" onClick={onNew}>
        {texts.toolbar.new}
      </button>
      <button type="button" aria-label={texts.toolbar.compareLabel} aria-pressed={isComparing} onClick={onCompare}>
        {texts.toolbar.compare}
      </button>
      <button type="button" aria-expanded={isSetupOpen} onClick={onSetup}>
        {texts.setup.title}
      </button>
    </div>
  );
}
