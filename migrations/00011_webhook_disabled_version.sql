-- +goose Up
-- The version that disabled a webhook last. What was scheduled before it is
-- cancelled, also where the webhook is enabled again before a relay looks.
ALTER TABLE relay.webhooks ADD COLUMN disabled_version bigint NOT NULL DEFAULT 0;
UPDATE relay.webhooks w
   SET disabled_version = l.version
  FROM (SELECT webhook_id, max(version) AS version FROM relay.webhook_log WHERE type = 'disabled' GROUP BY webhook_id) l
 WHERE l.webhook_id = w.id;
