// An image that a message contains; for one of another server, a link, because the page loads nothing from elsewhere.

import { imageOf, linkOf } from "../markdown/links";
import { texts } from "../texts";

export function Picture({ url, text }: { url: string; text: string }) {
  const source = imageOf(url);
  if (source) return <img class="picture" src={source} alt={text} />;
  const href = linkOf(url);
  return href ? (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow">
      {texts.answer.imageLink(href)}
    </a>
  ) : null;
}
