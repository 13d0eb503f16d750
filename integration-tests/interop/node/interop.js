'use strict';
// Runs every scenario against the broker at WARREN_AMQP_URI and prints one line for each.

const { Session, within } = require('./support');

const SCENARIO_MS = 40_000;
const scenarios = {
  ...require('./tutorials'),
  ...require('./confirms'),
  ...require('./failures'),
  ...require('./contents'),
  ...require('./tls'),
};

async function attempt(uri, name) {
  const scenario = scenarios[name];
  if (!scenario) throw new Error('no such scenario here');
  const session = new Session(uri, name);
  try {
    await within('the scenario', scenario(session), SCENARIO_MS);
  } finally {
    await within('tidying up', session.close());
  }
}

async function main(uri, names) {
  let failed = 0;
  for (const name of names) {
    try {
      await attempt(uri, name);
      console.log(`ok ${name}`);
    } catch (why) {
      failed += 1;
      console.log(`FAIL ${name}: ${why.message}`.replaceAll('\n', ' '));
    }
  }
  process.exit(failed ? 1 : 0);
}

// A late rejection must not end the run; the scenario it belongs to fails by its deadline or its own check.
process.on('unhandledRejection', (why) => console.error(`unhandled: ${why?.stack ?? why}`));
main(process.env.WARREN_AMQP_URI, process.argv.slice(2));
