package domain_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

func TestExpectVersion(t *testing.T) {
	t.Parallel()
	hook := foldWebhook(registered)
	hook.ID, hook.AccountID, hook.Version = 3, 1, 7
	pause := func(versions ...int64) domain.ExpectVersion {
		return domain.ExpectVersion{Versions: versions, Command: domain.PauseWebhook{}}
	}
	for _, versions := range [][]int64{{7}, {5, 7}} {
		events, err := domain.DecideWebhook(hook, pause(versions...))
		if err != nil || !reflect.DeepEqual(events, changes(domain.WebhookWasPaused{})) {
			t.Errorf("expected at %v: %v, error %v", versions, events, err)
		}
	}
	for _, versions := range [][]int64{{6}, {8}, {}, nil} {
		events, err := domain.DecideWebhook(hook, pause(versions...))
		stale, ok := errors.AsType[*domain.StaleVersionError](err)
		if len(events) != 0 || !ok || stale.Version != 7 {
			t.Errorf("expected at %v: %v, error %v", versions, events, err)
		}
	}
	// What is gone is gone, whatever was expected; and a command that changes
	// nothing is refused as well, since what it was decided on is past.
	hook.State = domain.WebhookDeleted
	if _, err := domain.DecideWebhook(hook, pause(7)); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("a deleted webhook: %v", err)
	}
	if _, err := domain.DecideWebhook(domain.Webhook{AccountID: 1}, pause(0)); !errors.Is(err, domain.ErrWebhookGone) {
		t.Errorf("a webhook that never was: %v", err)
	}
	hook.State = domain.WebhookPaused
	if _, err := domain.DecideWebhook(hook, pause(6)); err == nil {
		t.Error("a webhook that is paused already was not compared")
	}
}
