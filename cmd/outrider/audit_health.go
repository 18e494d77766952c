package main

import (
	"database/sql"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) auditHealth() *cobra.Command {
	var account domain.AccountID
	var webhook domain.WebhookID
	var format string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Show how each webhook does",
		Long: `Show how each webhook does: when it last took a POST, how many attempts have
failed since, whether its circuit breaker is open, the last hour's share of
successes and durations, and how much is pending. It is audit.webhook_health, which lags behind by 10 seconds at most.

It takes a user with the role outrider_auditor.`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &account, "account", "N", "", "only of this account", parseAccount)
	flagOf(flags, &webhook, "webhook", "N", "", "only this webhook", parseID[domain.WebhookID])
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			records, err := postgres.NewAudit(db).Health(cmd.Context(), account, webhook)
			if err != nil {
				return err
			}
			return writeList(a, format, healthColumns, records)
		})
	}
	return cmd
}

// defaultStatsSince is how far back statistics go where nothing is said.
const defaultStatsSince = "24h"

func (a *app) auditStats() *cobra.Command {
	var filter audit.StatsFilter
	var format string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count attempts and deliveries by webhook and hour",
		Long: `Count attempts by outcome, and deliveries that ended without success, by webhook
and hour in which they ended, with quantiles of the attempts' durations, and
deliveries that began. It is audit.webhook_stats, which lags behind by 10 seconds
at most. The newest hour is first; hours in which nothing began or ended are left
out.

It takes a user with the role outrider_auditor.`,
		Example: `  outrider audit stats --webhook 3 --since 720h
  outrider audit stats --account 1 --since 2026-07-01T00:00:00Z --until 2026-08-01T00:00:00Z --format csv`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &filter.AccountID, "account", "N", "", "only of this account", parseAccount)
	flagOf(flags, &filter.WebhookID, "webhook", "N", "", "only of this webhook", parseID[domain.WebhookID])
	flagOf(flags, &filter.Since, "since", "TIME", defaultStatsSince, "from the hour of this time on: RFC 3339, or a duration that counts back from now", a.parseTime)
	flagOf(flags, &filter.Until, "until", "TIME", "", "only hours that begin before", a.parseTime)
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		filter.Since = filter.Since.UTC().Truncate(time.Hour)
		if !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
			c.add("--since is not before --until")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			records, err := postgres.NewAudit(db).Stats(cmd.Context(), filter)
			if err != nil {
				return err
			}
			return writeList(a, format, statsColumns, records)
		})
	}
	return cmd
}

var healthColumns = []column[audit.Health]{
	{name: "account_id", value: func(h *audit.Health) any { return h.AccountID }, shown: "account"},
	{name: "webhook_id", value: func(h *audit.Health) any { return h.WebhookID }, shown: "webhook"},
	{name: "state", value: func(h *audit.Health) any { return h.State }, shown: "state"},
	{name: "last_success_at", value: func(h *audit.Health) any { return orNever(h.LastSuccessAt) }, shown: "last success"},
	{name: "last_failure_at", value: func(h *audit.Health) any { return orNever(h.LastFailureAt) }, shown: "last failure"},
	{name: "consecutive_failures", value: func(h *audit.Health) any { return h.ConsecutiveFailures }, shown: "failed since", tint: failuresTint},
	{name: "success_rate_1h", value: func(h *audit.Health) any { return pointed(h.SuccessRate1h) }, shown: "rate 1h"},
	{name: "p50_ms_1h", value: func(h *audit.Health) any { return pointed(h.P50MS1h) }, shown: "p50 ms"},
	{name: "p99_ms_1h", value: func(h *audit.Health) any { return pointed(h.P99MS1h) }, shown: "p99 ms"},
	{name: "pending", value: func(h *audit.Health) any { return h.Pending }, shown: "pending"},
	{name: "failing_since", value: func(h *audit.Health) any { return orNever(h.FailingSince) }},
	{name: "breaker", value: func(h *audit.Health) any { return h.Breaker }},
	{name: "breaker_opened_at", value: func(h *audit.Health) any { return orNever(h.BreakerOpenedAt) }, shown: "down since", tint: badTint},
}

var statsColumns = []column[audit.Stats]{
	{name: "hour", value: func(s *audit.Stats) any { return s.Hour }, shown: "hour"},
	{name: "account_id", value: func(s *audit.Stats) any { return s.AccountID }, shown: "account"},
	{name: "webhook_id", value: func(s *audit.Stats) any { return s.WebhookID }, shown: "webhook"},
	{name: "attempts", value: func(s *audit.Stats) any { return s.Attempts }, shown: "attempts"},
	{name: "succeeded", value: func(s *audit.Stats) any { return s.Succeeded }, shown: "succeeded"},
	{name: "failed", value: func(s *audit.Stats) any { return s.Failed }, shown: "failed"},
	{name: "unknown", value: func(s *audit.Stats) any { return s.Unknown }, shown: "unknown"},
	{name: "success_rate", value: func(s *audit.Stats) any { return pointed(s.SuccessRate) }, shown: "rate"},
	{name: "p50_ms", value: func(s *audit.Stats) any { return pointed(s.P50MS) }, shown: "p50 ms"},
	{name: "p95_ms", value: func(s *audit.Stats) any { return pointed(s.P95MS) }, shown: "p95 ms"},
	{name: "p99_ms", value: func(s *audit.Stats) any { return pointed(s.P99MS) }, shown: "p99 ms"},
	{name: "dead", value: func(s *audit.Stats) any { return s.Dead }, shown: "dead"},
	{name: "expired", value: func(s *audit.Stats) any { return s.Expired }, shown: "expired"},
	{name: "cancelled", value: func(s *audit.Stats) any { return s.Cancelled }, shown: "cancelled"},
	{name: "scheduled", value: func(s *audit.Stats) any { return s.Scheduled }, shown: "scheduled"},
}

func badTint(string) tint { return bad }

func failuresTint(text string) tint {
	if text == "0" {
		return noTint
	}
	return bad
}
