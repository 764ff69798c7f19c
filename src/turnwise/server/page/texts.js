// What the page says, in the languages that it knows. A server adds others: `page(texts={"fr": {...}})`.

const TEXTS = {
  en: {
    new: "New conversation", field: "Message", message: "Write a message", send: "Send (Enter)", stop: "Stop (Esc)", attach: "Attach a file",
    welcome: "Write a message",
    nothing_lost: "Messages are answered one after another, in order. You can send several at once, reload the page, or return tomorrow: nothing is lost.",
    hint: "Enter sends, Shift+Enter starts a new line, Esc stops the answer.",
    kept_here: "Messages are stored on this server. The list is stored in this browser.", kept_there: "Messages are stored on this server.",
    conversations: "Conversations", show_list: "Show conversations", close_list: "Close the list", search: "Search conversations", none_found: "No conversation has this in its name.",
    empty: "Empty this conversation", empty_sure: "Empty this conversation? Its messages will be deleted.", empty_yes: "Empty",
    delete: "Delete this conversation", delete_sure: "Delete this conversation? This cannot be undone.", delete_yes: "Delete",
    rename: "Rename this conversation", save: "Save this conversation as a file", theme: "Light, dark, or as the system", cancel: "Cancel", continue: "Continue",
    earlier: "Show earlier messages", latest: "Go to the latest message", skip: "Skip to the message field",
    key_needed: "This server requires a key to start a conversation.", key: "Key",
    today: "Today", yesterday: "Yesterday", week: "The last 7 days", older: "Older",
    sending: "Sending", waiting: "Waiting", one_ahead: "Waiting, 1 message ahead", ahead: "Waiting, {n} messages ahead", change: "Change", withdraw: "Withdraw", withdrawn: "The message was withdrawn.",
    changing: "Changing a message that waits.", editing: "Editing: the new message takes the place of the old one and of all behind it.",
    edit: "Edit", again: "Answer again", branch: "Branch from here", branch_name: "branch", copy: "Copy", copied: "Copied", good: "A good answer", bad: "A bad answer", thanks: "Thank you.",
    answering: "Answering", restarted: "The server was interrupted and has restarted the answer.", stopped: "Stopped", unfinished: "Not finished",
    length: "The answer reached its maximum length.", filtered: "The rest of the answer was filtered.", cut: "The answer was cut off.", error: "The answer was cut off by an error.",
    ask_again: "Ask again", you: "You said:", answer: "The answer:", your_answer: "Your answer", do_answer: "Answer", waits_for: "Waits for the result of {name}.",
    running: "running", completed: "done", failed: "failed", input: "Input", output: "Output", long: "Long parts were cut.", sources: "Sources", remove: "Remove {name}",
    reconnecting: "Reconnecting…", offline: "The server cannot be reached. Your message is kept and will be sent as soon as possible.",
    log_in: "Log in", logged_out: "Please log in to write here.", ended: "You are no longer logged in, or this conversation is no longer there.",
    more: "More", keep: "Save", elsewhere: "This conversation is not in the list of this browser.",
    gone: "This conversation is no longer on the server.", refused: "The server does not accept this browser's key to this conversation any more.",
  },
  de: {
    new: "Neues Gespräch", field: "Nachricht", message: "Nachricht schreiben", send: "Senden (Enter)", stop: "Anhalten (Esc)", attach: "Datei anhängen",
    welcome: "Schreiben Sie eine Nachricht",
    nothing_lost: "Nachrichten werden der Reihe nach beantwortet. Sie können mehrere auf einmal senden, die Seite neu laden oder morgen wiederkommen: Nichts geht verloren.",
    hint: "Enter sendet, Umschalt+Enter beginnt eine neue Zeile, Esc hält die Antwort an.",
    kept_here: "Die Nachrichten liegen auf diesem Server, die Liste in diesem Browser.", kept_there: "Die Nachrichten liegen auf diesem Server.",
    conversations: "Gespräche", show_list: "Gespräche zeigen", close_list: "Liste schließen", search: "Gespräche suchen", none_found: "Kein Gespräch hat das in seinem Namen.",
    empty: "Dieses Gespräch leeren", empty_sure: "Dieses Gespräch leeren? Seine Nachrichten werden gelöscht.", empty_yes: "Leeren",
    delete: "Dieses Gespräch löschen", delete_sure: "Dieses Gespräch löschen? Das lässt sich nicht rückgängig machen.", delete_yes: "Löschen",
    rename: "Dieses Gespräch umbenennen", save: "Dieses Gespräch als Datei sichern", theme: "Hell, dunkel oder wie das System", cancel: "Abbrechen", continue: "Weiter",
    earlier: "Frühere Nachrichten zeigen", latest: "Zur letzten Nachricht", skip: "Zum Nachrichtenfeld springen",
    key_needed: "Dieser Server verlangt einen Schlüssel für ein neues Gespräch.", key: "Schlüssel",
    today: "Heute", yesterday: "Gestern", week: "Die letzten 7 Tage", older: "Älter",
    sending: "Wird gesendet", waiting: "Wartet", one_ahead: "Wartet, 1 Nachricht davor", ahead: "Wartet, {n} Nachrichten davor", change: "Ändern", withdraw: "Zurückziehen", withdrawn: "Die Nachricht wurde zurückgezogen.",
    changing: "Sie ändern eine wartende Nachricht.", editing: "Bearbeiten: Die neue Nachricht ersetzt die alte und alles danach.",
    edit: "Bearbeiten", again: "Neu beantworten", branch: "Von hier abzweigen", branch_name: "Abzweig", copy: "Kopieren", copied: "Kopiert", good: "Eine gute Antwort", bad: "Eine schlechte Antwort", thanks: "Danke.",
    answering: "Antwortet", restarted: "Der Server wurde unterbrochen und hat die Antwort neu begonnen.", stopped: "Angehalten", unfinished: "Nicht fertig",
    length: "Die Antwort hat ihre größte Länge erreicht.", filtered: "Der Rest der Antwort wurde gefiltert.", cut: "Die Antwort wurde abgeschnitten.", error: "Die Antwort wurde durch einen Fehler abgeschnitten.",
    ask_again: "Noch einmal fragen", you: "Sie schrieben:", answer: "Die Antwort:", your_answer: "Ihre Antwort", do_answer: "Antworten", waits_for: "Wartet auf das Ergebnis von {name}.",
    running: "läuft", completed: "fertig", failed: "fehlgeschlagen", input: "Eingabe", output: "Ausgabe", long: "Lange Teile wurden gekürzt.", sources: "Quellen", remove: "{name} entfernen",
    reconnecting: "Verbindet neu …", offline: "Der Server ist nicht erreichbar. Ihre Nachricht bleibt erhalten und wird so bald wie möglich gesendet.",
    log_in: "Anmelden", logged_out: "Bitte melden Sie sich an, um hier zu schreiben.", ended: "Sie sind nicht mehr angemeldet, oder dieses Gespräch gibt es nicht mehr.",
    more: "Mehr", keep: "Sichern", elsewhere: "Dieses Gespräch steht nicht in der Liste dieses Browsers.",
    gone: "Dieses Gespräch ist nicht mehr auf dem Server.", refused: "Der Server nimmt den Schlüssel dieses Browsers zu diesem Gespräch nicht mehr an.",
  },
};

/** From right to left. */
const TURNED = ["ar", "fa", "he", "ur"];
let texts = TEXTS.en;

/** A text, with what belongs in its places. */
export const t = (name, places = {}) =>
  (texts[name] ?? TEXTS.en[name] ?? name).replace(/\{(\w+)\}/g, (_, place) => places[place] ?? "");

/** When something was said: today the time alone. */
export function when(stamp) {
  const moment = new Date(stamp);
  const today = moment.toDateString() === new Date().toDateString();
  return moment.toLocaleString(document.documentElement.lang, today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
}

/** Speak the first of the browser's languages that there is a table for. */
export function speak(more = {}, wanted = navigator.languages) {
  const all = { ...TEXTS };
  for (const [language, own] of Object.entries(more)) all[language] = { ...all[language], ...own };
  const language = wanted.map((one) => one.toLowerCase().split("-")[0]).find((one) => all[one]) ?? "en";
  texts = all[language];
  document.documentElement.lang = language;
  document.documentElement.dir = TURNED.includes(language) ? "rtl" : "ltr";
  for (const place of document.querySelectorAll("[data-t]")) place.textContent = t(place.dataset.t);
  for (const place of document.querySelectorAll("[data-label]")) {
    const label = t(place.dataset.label);
    if (place.title) place.title = label;
    place.setAttribute("aria-label", label);
  }
  for (const place of document.querySelectorAll("[data-placeholder]")) place.placeholder = t(place.dataset.placeholder);
}
