// Which addresses of a model's answer become links and images.

const LINK = /^(https?:\/\/|mailto:)/i;
const IMAGE = /^data:image\/(png|jpeg|gif|webp|avif);base64,[a-z0-9+/=\s]+$/i;

/** Returns the address of a link that may be followed, null for `javascript:`, `data:`, relative and other addresses. */
export function linkOf(address: string | null | undefined): string | null {
  return address && LINK.test(address.trim()) ? address.trim() : null;
}

/** Returns the address of an image that contains the image itself. The page loads no image of another server. */
export function imageOf(address: string | null | undefined): string | null {
  return address && IMAGE.test(address) ? address : null;
}

/** Returns an address as the browser will call it: a host with letters of other scripts, which may look alike, as `xn--…`. */
export function calledAddress(href: string): string {
  try {
    return new URL(href).href;
  } catch {
    return href;
  }
}

const OVERRIDES = /[\u202d\u202e]/g;
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069]/g;

/** Makes characters visible that reverse the order of the text behind them. */
export function withoutOverrides(text: string): string {
  return text.replace(OVERRIDES, "\ufffd");
}

/** The same for code, where every character that changes the direction of text may mislead. */
export function withoutDirections(text: string): string {
  return text.replace(DIRECTIONS, "\ufffd");
}
