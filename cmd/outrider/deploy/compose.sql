-- The roles of compose.yaml, made once by the administrator of the database
-- chat. The groups belong to the chat system's cluster; see "Install" in the
-- README for what each may do.

CREATE ROLE outrider_owner LOGIN PASSWORD 'change-me';
GRANT CREATE ON DATABASE chat TO outrider_owner;

CREATE ROLE outrider_producer;
CREATE ROLE outrider_relay;
CREATE ROLE outrider_operator;
CREATE ROLE outrider_auditor;
CREATE ROLE outrider_tenant;
CREATE ROLE outrider_web;
CREATE ROLE outrider_views;
GRANT outrider_views TO outrider_owner;

CREATE ROLE relay_app LOGIN PASSWORD 'change-me' IN ROLE outrider_relay;
CREATE ROLE web_app LOGIN PASSWORD 'change-me' IN ROLE outrider_web;
CREATE ROLE chat_app LOGIN PASSWORD 'change-me' IN ROLE outrider_producer;
