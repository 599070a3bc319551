// How full the model's context is, by the token counts that the server reported; never by counting characters.

import { leafBelow, pathTo } from "./conversation.js";

const WORTH_SAYING_FRACTION = 0.5;

/** A line such as "3,100 of 4,096 tokens", or "" while less than half is used or nothing is known. */
export function contextUse(conversation, model) {
  const context = model?.extras?.context;
  if (!context) return "";
  const leaves = conversation.lanes?.map((lane) => lane.leaf) ?? [leafBelow(conversation)];
  const used = Math.max(...leaves.map((leaf) => usedAt(conversation, leaf)));
  return used >= WORTH_SAYING_FRACTION * context
    ? `${used.toLocaleString("en")} of ${context.toLocaleString("en")} tokens`
    : "";
}

function usedAt(conversation, leaf) {
  const usage = pathTo(conversation, leaf).findLast((node) => node.turn?.usage)?.turn.usage;
  return usage ? (usage.prompt ?? 0) + (usage.completion ?? 0) : 0;
}
