// The field of the next question: Enter sends, Shift+Enter is a new line; images are pasted, dropped or chosen.

import { useRef, useState } from "preact/hooks";
import { texts } from "../texts";
import { Notice } from "../ui/notice";
import { ACCEPTED, readImage } from "./images";

const DRAFT = "parley.draft";
/** Characters of a text that is kept; a browser keeps some five million of a page. */
const MAX_DRAFT = 1_000_000;

interface Props {
  isBusy: boolean;
  isReady: boolean;
  onSend(text: string, images: string[]): void;
  onStop(): void;
}

export function Composer({ isBusy, isReady, onSend, onStop }: Props) {
  const [text, setText] = useDraft();
  const [images, setImages] = useState<string[]>([]);
  const [error, setError] = useState<string | null>(null);

  const add = async (files: Iterable<File>) => {
    setError(null);
    for (const file of files) {
      await readImage(file).then((url) => setImages((known) => [...known, url]), (e: Error) => setError(e.message));
    }
  };
  const send = (event?: Event) => {
    event?.preventDefault();
    if (isBusy || !isReady || !(text.trim() || images.length)) return;
    onSend(text, images);
    setText("");
    setImages([]);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    void add(event.dataTransfer?.files ?? []);
  };
  return (
    <form class="composer" onSubmit={send} onDragOver={(event) => event.preventDefault()} onDrop={drop}>
      {error && <Notice kind="error">{error}</Notice>}
      <Thumbnails images={images} onRemove={(index) => setImages(images.filter((_, i) => i !== index))} />
      <textarea
        aria-label={texts.composer.question}
        placeholder={texts.composer.placeholder}
        rows={3}
        dir="auto"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onPaste={(event) => void add(event.clipboardData?.files ?? [])}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
        }}
      />
      <div class="row">
        <ImageButton onFiles={(files) => void add(files)} />
        <span class="grow hint">{texts.composer.keys}</span>
        {isBusy ? (
          <button type="button" class="primary" onClick={onStop}>
            {texts.composer.stop}
          </button>
        ) : (
          <button type="submit" class="primary" disabled={!isReady || !(text.trim() || images.length)}>
            {texts.composer.send}
          </button>
        )}
      </div>
    </form>
  );
}

/** The text that is not sent yet; it outlives a reload of the page. */
function useDraft() {
  const [text, setText] = useState(() => sessionStorage.getItem(DRAFT) ?? "");
  const change = (changed: string) => {
    setText(changed);
    if (changed.length <= MAX_DRAFT) sessionStorage.setItem(DRAFT, changed);
  };
  return [text, change] as const;
}

function Thumbnails({ images, onRemove }: { images: string[]; onRemove(index: number): void }) {
  if (!images.length) return null;
  return (
    <ul class="thumbnails">
      {images.map((url, index) => (
        <li key={index}>
          <img src={url} alt={texts.composer.image(index + 1)} />
          <button type="button" class="quiet" onClick={() => onRemove(index)}>
            {texts.composer.remove(index + 1)}
          </button>
        </li>
      ))}
    </ul>
  );
}

function ImageButton({ onFiles }: { onFiles(files: Iterable<File>): void }) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        type="file"
        accept={ACCEPTED}
        multiple
        hidden
        aria-label={texts.composer.addImage}
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
      <button type="button" onClick={() => input.current?.click()}>
        {texts.composer.addImage}
      </button>
    </>
  );
}
