// The admin key, kept for the tab, or in the browser if the administrator chooses so. An empty one stands for a certificate.

const NAME = "parley.admin";

export function load(): string | null {
  return sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME);
}

export function save(key: string, isKept: boolean): void {
  forget();
  (isKept ? localStorage : sessionStorage).setItem(NAME, key);
}

export function forget(): void {
  for (const store of [sessionStorage, localStorage]) store.removeItem(NAME);
}
