// Images of a question, from files, the clipboard or a drag.

import type { ImagePart, Message, Part } from "../api/types";
import { texts } from "../texts";

const TYPES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
export const ACCEPTED = TYPES.join(",");
/** A request body may have 8 MiB by default; base64 adds a third. */
const MAX_BYTES = 5 * 2 ** 20;

/** Reads an image as a data URL. Throws an error with a text for the caller. */
export function readImage(file: File): Promise<string> {
  if (!TYPES.includes(file.type)) return Promise.reject(new Error(texts.composer.notImage(file.name)));
  if (file.size > MAX_BYTES) return Promise.reject(new Error(texts.composer.tooLarge(file.name)));
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Error(texts.composer.unreadable(file.name)));
    reader.readAsDataURL(file);
  });
}

/** Returns a question with its images. */
export function question(text: string, images: string[]): Message {
  if (!images.length) return { role: "user", content: text };
  const shown = images.map((url): ImagePart => ({ type: "image_url", image_url: { url } }));
  const said: Part[] = text ? [{ type: "text", text }] : [];
  return { role: "user", content: [...said, ...shown] };
}

export function textOf({ content }: Message): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => (part.type === "text" ? part.text : "")).join("");
}

export function imagesOf({ content }: Message): string[] {
  if (!Array.isArray(content)) return [];
  return content.flatMap((part) => (part.type === "image_url" ? part.image_url.url : []));
}
