-- oldest-worker: 10
-- The breakers and holds of targets, which the replicas share. Times are Unix seconds of the database's clock.
CREATE TABLE parley.targets (
  name         text COLLATE "C" PRIMARY KEY, -- BACKEND/MODEL and a hash of where the backend is
  opened_at    double precision,          -- when a replica has opened its breaker: open if later than recovered_at
  recovered_at double precision,          -- when a probe last succeeded
  next_probe   double precision,
  interval     double precision NOT NULL, -- seconds between probes
  held_until   double precision,          -- the end of a hold (Retry-After)
  rate_limited boolean NOT NULL,          -- whether a rate limit is the reason for the hold
  machine      text NOT NULL,             -- a random id of the process that has stored the row
  changed      double precision NOT NULL
);
