// chaos: a storm of clients in plain, while cells and gateways are killed: support-chaos.mjs.
import { stormOfSuite } from './support-chaos.mjs';

stormOfSuite(false);
